//! Random members: looked at, or taken away.

use super::super::prelude::*;
use super::super::shared::{
    COUNT_OUT_OF_RANGE, KEY, ONE_READ, ONE_TAKE, close_if_beyond_output, removed, repeated_picks,
    reply_element,
};
use super::config;
use kara_keyspace::Collection;
use kara_keyspace::value::set::{Element, Set};
use smallvec::SmallVec;

/// Members of one SREM in the journal.
const MEMBERS_PER_COMMAND: usize = 1024;
/// A table of which at most this share is left becomes a listpack, if that can hold it.
const REMAINDER_SHARE: usize = 5;

pub(super) const SPOP: Spec = Spec {
    name: "spop",
    arity: Arity::AtLeast(2),
    flags: Flags::FAST.union(Flags::WRITE),
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Removes random members of a set and returns them.",
    complexity: "O(1) without a count, else O(N), N being the count.",
    tips: &["nondeterministic_output"],
    key_specs: ONE_TAKE,
    args: &[KEY, Arg { name: "count", kind: ArgKind::Integer, since: "3.2.0", optional: true, ..Arg::NEW }],
    handler: Some(spop),
    ..Spec::NEW
};

fn spop(cx: &mut Cx) -> Outcome {
    match cx.args.len() {
        2 => spop_one(cx),
        3 => spop_count(cx),
        _ => Err(CommandError::Syntax),
    }
}

fn spop_one(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let mut rng = cx.keys.rng.clone();
    let Some(set) = cx.keys.write_as::<Set>(key)? else {
        cx.reply.null();
        return Ok(Effect::None);
    };
    let member = set.pop_random(&mut rng);
    let empty = set.is_empty();
    *cx.keys.rng = rng;
    let Some(member) = member else { return Ok(Effect::None) };
    cx.reply.bulk(&member);
    removed(cx, key, Class::SET, "spop", empty, 1);
    Ok(Effect::rewrite(cx.journal_on(), || OwnedCommand::new("SREM").arg(key).arg(&member)))
}

fn spop_count(cx: &mut Cx) -> Outcome {
    let key = cx.arg(1);
    let count = parse_int(cx.arg(2))
        .ok()
        .filter(|count| *count >= 0)
        .and_then(|count| usize::try_from(count).ok())
        .ok_or(CommandError::text("ERR value is out of range, must be positive"))?;
    let config = config(cx);
    let mut rng = cx.keys.rng.clone();
    let journal_on = cx.journal_on();
    let Some(set) = cx.keys.write_as::<Set>(key)? else {
        cx.reply.set(0);
        return Ok(Effect::None);
    };
    if count == 0 {
        cx.reply.set(0);
        return Ok(Effect::None);
    }
    let len = set.len();
    if count >= len {
        cx.reply.set(len);
        set.iter().for_each(|member| reply_element(cx.reply, member));
        removed(cx, key, Class::SET, "spop", true, len);
        let name = if cx.keys.policy.lazy_overwrite { "UNLINK" } else { "DEL" };
        return Ok(Effect::rewrite(journal_on, || OwnedCommand::new(name).arg(key)));
    }
    let mut taken = Vec::new();
    set.sample(count, &mut rng, |member| taken.push(member.to_bytes()));
    taken.iter().for_each(|member| {
        set.remove(member);
    });
    if set.len().saturating_mul(REMAINDER_SHARE) <= count {
        set.shrink_to_remainder(&config);
    }
    *cx.keys.rng = rng;
    cx.reply.set(taken.len());
    taken.iter().for_each(|member| cx.reply.bulk(member));
    removed(cx, key, Class::SET, "spop", false, taken.len());
    Ok(Effect::rewrite_many(journal_on, || removals(key, &taken)))
}

fn removals(key: &[u8], members: &[Vec<u8>]) -> SmallVec<[OwnedCommand; 1]> {
    let one = |members: &[Vec<u8>]| {
        members.iter().fold(OwnedCommand::new("SREM").arg(key), |command, member| command.arg(member))
    };
    members.chunks(MEMBERS_PER_COMMAND).map(one).collect()
}

pub(super) const SRANDMEMBER: Spec = Spec {
    name: "srandmember",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::SET,
    group: Group::Set,
    since: "1.0.0",
    summary: "Returns random members of a set.",
    complexity: "O(1) without a count, else O(N), N being the count's absolute value.",
    tips: &["nondeterministic_output"],
    key_specs: ONE_READ,
    args: &[KEY, Arg { name: "count", kind: ArgKind::Integer, since: "2.6.0", optional: true, ..Arg::NEW }],
    handler: Some(srandmember),
    ..Spec::NEW
};

fn srandmember(cx: &mut Cx) -> Outcome {
    let mut rng = cx.keys.rng.clone();
    let outcome = match cx.args.len() {
        2 => {
            match cx.keys.read_as::<Set>(cx.arg(1))?.and_then(|set| set.random(&mut rng)) {
                Some(member) => reply_element(cx.reply, member),
                None => cx.reply.null(),
            }
            Ok(Effect::None)
        }
        3 => srandmember_count(cx, &mut rng),
        _ => Err(CommandError::Syntax),
    };
    *cx.keys.rng = rng;
    outcome
}

fn srandmember_count(cx: &mut Cx, rng: &mut kara_base::rng::Rng) -> Outcome {
    let count = cx.int(2)?;
    if count == i64::MIN {
        return Err(COUNT_OUT_OF_RANGE);
    }
    let set = match cx.keys.read_as::<Set>(cx.arg(1))? {
        Some(set) if count != 0 => set,
        _ => {
            cx.reply.array(0);
            return Ok(Effect::None);
        }
    };
    if count > 0 {
        let wanted = usize::try_from(count).unwrap_or(usize::MAX).min(set.elements());
        cx.reply.array(wanted);
        set.sample(wanted, rng, |member| reply_element(cx.reply, member));
        return Ok(Effect::None);
    }
    let size = set.random(rng).map_or(0, |member| member.len());
    close_if_beyond_output(cx.session, cx.config, count, size);
    let picks = repeated_picks(count, size)?;
    // A listpack's walk to a rank is long: it is read into a vector once.
    let small: Vec<Element<'_>> =
        if matches!(set, Set::Listpack(_)) { set.iter().collect() } else { Vec::new() };
    cx.reply.array(picks);
    for _ in 0..picks {
        let pick = match small.len() {
            0 => set.random(rng),
            len => small.get(rng.below(len as u64) as usize).copied(),
        };
        pick.into_iter().for_each(|member| reply_element(cx.reply, member));
    }
    Ok(Effect::None)
}
