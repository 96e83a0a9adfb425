//! The arguments `... [options] FIELDS numfields field ...` of the commands about fields' expiries.

use super::super::prelude::*;

const NUM_FIELDS: CommandError =
    CommandError::text("ERR numfields should be greater than 0 and match the provided number of fields");

/// The FIELDS block in `args`.
pub(super) const FIELDS: Arg = Arg {
    name: "fields",
    kind: ArgKind::Block,
    token: Some("FIELDS"),
    args: &[
        Arg { name: "numfields", kind: ArgKind::Integer, key_spec: Some(0), ..Arg::NEW },
        Arg { name: "field", kind: ArgKind::String, multiple: true, ..Arg::NEW },
    ],
    ..Arg::NEW
};

/// The same where the reference leaves out the link to the key spec.
pub(super) const FIELDS_UNLINKED: Arg = Arg {
    args: &[
        Arg { name: "numfields", kind: ArgKind::Integer, ..Arg::NEW },
        Arg { name: "field", kind: ArgKind::String, multiple: true, ..Arg::NEW },
    ],
    ..FIELDS
};

/// `args` from `start` on: options, which `parse` reads, then FIELDS, the number and as many groups of `per_field`
/// words, which come back. Options are read, and may fail, before the number.
pub(super) fn after_options<'a, T: Default>(
    args: &'a [&'a [u8]],
    start: usize,
    per_field: usize,
    parse: impl FnOnce(&'a [&'a [u8]]) -> Result<T, CommandError>,
) -> Result<(T, &'a [&'a [u8]]), CommandError> {
    let candidates = args.get(start..args.len() - 1).unwrap_or_default();
    let Some(at) = candidates.iter().position(|word| word.eq_ignore_ascii_case(b"fields")) else {
        return Err(NUM_FIELDS);
    };
    let options = parse(&candidates[..at])?;
    let (number, fields) = split_number(&args[start + at + 1..])?;
    if number < 1 || usize::try_from(number).ok().and_then(|n| n.checked_mul(per_field)) != Some(fields.len())
    {
        return Err(NUM_FIELDS);
    }
    Ok((options, fields))
}

/// `args` from position 2 on: FIELDS, the number and as many fields. A wrong number is `wrong`.
pub(super) fn directly<'a>(
    args: &'a [&'a [u8]],
    wrong: Option<CommandError>,
) -> Result<&'a [&'a [u8]], CommandError> {
    if !args.get(2).is_some_and(|word| word.eq_ignore_ascii_case(b"fields")) {
        return Err(CommandError::Syntax);
    }
    let (number, fields) = split_number(args.get(3..).unwrap_or_default())?;
    if number < 1 || usize::try_from(number) != Ok(fields.len()) {
        return Err(wrong.unwrap_or(NUM_FIELDS));
    }
    Ok(fields)
}

fn split_number<'a>(args: &'a [&'a [u8]]) -> Result<(i64, &'a [&'a [u8]]), CommandError> {
    let (number, fields) = args.split_first().ok_or(CommandError::Syntax)?;
    Ok((parse_int(number)?, fields))
}

/// When fields expire, as HSETEX and HGETEX are told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Expiry<'a> {
    /// Nothing is said.
    #[default]
    Unsaid,
    /// PERSIST
    Remove,
    /// KEEPTTL
    Keep,
    At(Time<'a>),
}

/// A point in time as an argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Time<'a> {
    pub text: &'a [u8],
    pub seconds: bool,
    pub relative: bool,
}

impl<'a> Time<'a> {
    /// EX, PX, EXAT or PXAT without its value.
    fn named(word: &[u8]) -> Option<Time<'a>> {
        let kinds = [("ex", true, true), ("px", false, true), ("exat", true, false), ("pxat", false, false)];
        kinds
            .into_iter()
            .find(|(name, ..)| word.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, seconds, relative)| Time { text: b"", seconds, relative })
    }

    /// The Unix time in ms.
    pub fn to_ms(self, cx: &Cx) -> Result<i64, CommandError> {
        let number = parse_int(self.text)?;
        let factor = if self.seconds { 1000 } else { 1 };
        let base = if self.relative { cx.now_ms } else { 0 };
        (number >= 0)
            .then(|| number.checked_mul(factor)?.checked_add(base))
            .flatten()
            .ok_or_else(|| CommandError::InvalidExpire(cx.command.full_name.into()))
    }
}

/// Options of HSETEX and HGETEX.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options<'a> {
    pub expiry: Expiry<'a>,
    /// NX or XX: whether the key must be there.
    pub key_there: Option<bool>,
    /// FNX or FXX: whether the fields must be there.
    pub fields_there: Option<bool>,
}

impl<'a> Options<'a> {
    /// Reads them. `sets`: those of HSETEX, else of HGETEX.
    pub fn parse(args: &'a [&'a [u8]], sets: bool) -> Result<Self, CommandError> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(word) = args.next() {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            let condition = |there: &mut Option<bool>, wanted: bool| {
                let fits = sets && *there != Some(!wanted);
                *there = Some(wanted);
                if fits { Ok(()) } else { Err(CommandError::Syntax) }
            };
            if let Some(time) = Time::named(word) {
                let text = args.next().ok_or(CommandError::Syntax)?;
                options.set_expiry(Expiry::At(Time { text, ..time }))?;
            } else if is("keepttl") && sets {
                options.set_expiry(Expiry::Keep)?;
            } else if is("persist") && !sets {
                options.set_expiry(Expiry::Remove)?;
            } else if is("nx") {
                condition(&mut options.key_there, false)?;
            } else if is("xx") {
                condition(&mut options.key_there, true)?;
            } else if is("fnx") {
                condition(&mut options.fields_there, false)?;
            } else if is("fxx") {
                condition(&mut options.fields_there, true)?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// The same option may be given again, another one not.
    fn set_expiry(&mut self, expiry: Expiry<'a>) -> Result<(), CommandError> {
        let fits = match (self.expiry, expiry) {
            (Expiry::Unsaid, _) => true,
            (Expiry::At(a), Expiry::At(b)) => (a.seconds, a.relative) == (b.seconds, b.relative),
            (a, b) => a == b,
        };
        self.expiry = expiry;
        if fits { Ok(()) } else { Err(CommandError::Syntax) }
    }
}

/// A command of the journal about fields: name, key, options, FIELDS, their number, the words.
pub(super) fn journal_command(
    name: &str,
    key: &[u8],
    options: &[&[u8]],
    number: usize,
    words: &[&[u8]],
) -> OwnedCommand {
    let command = OwnedCommand::new(name).arg(key);
    let command = options.iter().fold(command, |command, option| command.arg(option));
    let command = command.arg(b"FIELDS").arg_i64(i64::try_from(number).unwrap_or(i64::MAX));
    words.iter().fold(command, |command, word| command.arg(word))
}

/// HDEL of some fields.
pub(super) fn journal_removal(key: &[u8], fields: &[&[u8]]) -> OwnedCommand {
    fields.iter().fold(OwnedCommand::new("HDEL").arg(key), |command, field| command.arg(field))
}
