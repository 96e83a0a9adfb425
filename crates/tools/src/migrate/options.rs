//! What `kara-cli migrate` is told.

use crate::cli::options::Target;
use crate::cli::uri;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    No,
    Yes,
    Only,
}

#[derive(Clone, Debug)]
pub struct MigrateOptions {
    pub from: Target,
    pub to: Target,
    pub databases: Option<Vec<u32>>,
    pub pattern: Option<Vec<u8>>,
    pub replace: bool,
    pub state: Option<PathBuf>,
    /// Keys a second.
    pub rate: Option<u64>,
    pipeline: usize,
    pub verify: Verify,
    pub functions: bool,
    pub quiet: bool,
}

impl MigrateOptions {
    /// Keys per round trip; with a rate no more than a tenth of a second's.
    pub fn batch(&self) -> usize {
        let by_rate = self.rate.and_then(|rate| usize::try_from(rate / 10).ok()).unwrap_or(usize::MAX);
        self.pipeline.min(by_rate).max(1)
    }

    /// What the state file calls this job.
    pub fn job(&self) -> String {
        let place = |target: &Target| match &target.socket {
            Some(path) => String::from_utf8_lossy(path).into_owned(),
            None => format!("{}:{}", String::from_utf8_lossy(&target.host), target.port),
        };
        let pattern = self.pattern.as_deref().map(kara_base::text::quoted).unwrap_or_default();
        format!("{} -> {} {pattern}", place(&self.from), place(&self.to)).trim_end().to_string()
    }

    /// `Err` is what to tell the user.
    pub fn parse(
        args: &[Vec<u8>],
        variable: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<MigrateOptions, String> {
        let (mut from, mut to) = (None, None);
        let mut options = MigrateOptions {
            from: Target::default(),
            to: Target::default(),
            databases: None,
            pattern: None,
            replace: false,
            state: None,
            rate: None,
            pipeline: 128,
            verify: Verify::Yes,
            functions: true,
            quiet: false,
        };
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let shown = String::from_utf8_lossy(word).into_owned();
            let mut value = || words.next().map(Vec::as_slice).ok_or(format!("{shown} needs a value"));
            match word.as_slice() {
                b"--from" => from = Some(target(value()?)?),
                b"--to" => to = Some(target(value()?)?),
                b"--db" => options.databases = Some(databases(value()?)?),
                b"--pattern" => options.pattern = Some(value()?.to_vec()),
                b"--replace" => options.replace = true,
                b"--state" => options.state = Some(OsStr::from_bytes(value()?).into()),
                b"--rate" => options.rate = Some(number(value()?, &shown)?),
                b"--pipeline" => {
                    options.pipeline = usize::try_from(number(value()?, &shown)?).unwrap_or(1).min(10_000);
                }
                b"--verify" => {
                    options.verify = match value()? {
                        b"no" => Verify::No,
                        b"yes" => Verify::Yes,
                        b"only" => Verify::Only,
                        _ => return Err("--verify is yes, no or only".into()),
                    }
                }
                b"--no-functions" => options.functions = false,
                b"--quiet" => options.quiet = true,
                _ => return Err(format!("unknown option {shown}")),
            }
        }
        options.from = from.ok_or("--from URL is missing")?;
        options.to = to.ok_or("--to URL is missing")?;
        for (target, name) in [(&mut options.from, "KARA_FROM_AUTH"), (&mut options.to, "KARA_TO_AUTH")] {
            if target.password.is_none() {
                target.password = variable(name);
            }
        }
        if (&options.from.host, options.from.port, &options.from.socket)
            == (&options.to.host, options.to.port, &options.to.socket)
        {
            return Err("--from and --to are the same server".into());
        }
        Ok(options)
    }
}

fn target(text: &[u8]) -> Result<Target, String> {
    let mut target = Target::default();
    uri::parse(text, &mut target).map_err(|why| format!("{}: {why}", String::from_utf8_lossy(text)))?;
    Ok(target)
}

fn number(text: &[u8], name: &str) -> Result<u64, String> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.filter(|number| *number > 0).ok_or_else(|| format!("{name} takes a number above 0"))
}

fn databases(text: &[u8]) -> Result<Vec<u32>, String> {
    let text = String::from_utf8_lossy(text).into_owned();
    let mut all: Vec<u32> = text
        .split(',')
        .map(|part| part.trim().parse().map_err(|_| format!("--db {text}: no list of numbers")))
        .collect::<Result<_, _>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<MigrateOptions, String> {
        let args: Vec<_> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        MigrateOptions::parse(&args, |name| (name == "KARA_TO_AUTH").then(|| b"secret".to_vec()))
    }

    #[test]
    fn options() {
        let options =
            parse("--from redis://a --to valkey://b:7 --db 3,1,3 --rate 50 --pattern x*").expect("options");
        assert_eq!(options.databases, Some(vec![1, 3]));
        assert_eq!(options.batch(), 5);
        assert_eq!(options.job(), "a:6379 -> b:7 \"x*\"");
        assert_eq!(options.to.password.as_deref(), Some(&b"secret"[..]));
        assert_eq!(options.from.password, None);
    }

    #[test]
    fn mistakes() {
        for (line, message) in [
            ("--from redis://a", "--to URL is missing"),
            ("--from x --to redis://a", "x: Invalid URI scheme"),
            ("--from redis://a --to redis://a", "--from and --to are the same server"),
            ("--rate 0", "--rate takes a number above 0"),
            ("--state", "--state needs a value"),
            ("--db x", "--db x: no list of numbers"),
            ("--what", "unknown option --what"),
        ] {
            assert_eq!(parse(line).err().as_deref(), Some(message), "{line}");
        }
    }
}
