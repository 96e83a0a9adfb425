//! LOLWUT: a picture and the version.

use crate::commands::prelude::*;

pub(super) const LOLWUT: Spec = Spec {
    name: "lolwut",
    arity: Arity::AtLeast(1),
    flags: Flags::FAST.union(Flags::READONLY),
    group: Group::Server,
    since: "5.0.0",
    summary: "Draws a picture and tells the version.",
    args: &[Arg {
        name: "version",
        kind: ArgKind::Integer,
        token: Some("VERSION"),
        optional: true,
        ..Arg::NEW
    }],
    handler: Some(lolwut),
    ..Spec::NEW
};

/// Larger canvases than this are cut down: the picture is a joke, not a load test.
const MAX_WIDTH: i64 = 160;
const MAX_HEIGHT: i64 = 80;
/// Light to dark.
const SHADES: &[u8] = b" .:-=+*%#@";

fn lolwut(cx: &mut Cx) -> Outcome {
    let mut numbers = cx.args.get(1..).unwrap_or_default();
    if let [word, _, rest @ ..] = numbers
        && word.eq_ignore_ascii_case(b"VERSION")
    {
        // Every version draws the same here; the number must be one all the same.
        cx.int(2)?;
        numbers = rest;
    }
    let usage = CommandError::text("ERR Syntax error. Use: LOLWUT [columns rows] [real imaginary]");
    let size = |at: usize, default: i64, max: i64| match numbers.get(at) {
        None => Ok(default),
        Some(word) => parse_int(word).map(|n| n.clamp(1, max)).map_err(|_| usage.clone()),
    };
    let (width, height) = (size(0, 64, MAX_WIDTH)?, size(1, 16, MAX_HEIGHT)?);
    let phase = cx.keys.rng.unit_f64() * std::f64::consts::TAU;
    let mut text = ripples(width, height, phase);
    text.push_str("\nWhere two drops fell. Valkey ver. 9.1.2\n");
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(Effect::None)
}

/// The waves of two drops on a pond, at one moment.
fn ripples(width: i64, height: i64, phase: f64) -> String {
    let (width_f, height_f) = (width as f64, height as f64);
    let wave = |x: f64, y: f64, at: (f64, f64)| {
        // A character is about twice as high as wide.
        let distance = ((x - at.0 * width_f) / 2.0).hypot(y - at.1 * height_f);
        (distance * 1.1 - phase).cos() / (1.0 + distance / 6.0)
    };
    let mut text = String::new();
    for y in 0..height {
        for x in 0..width {
            let (x, y) = (x as f64, y as f64);
            let level = (wave(x, y, (0.3, 0.35)) + wave(x, y, (0.68, 0.7)) + 1.0) / 2.5;
            let shade = (level.clamp(0.0, 1.0) * (SHADES.len() - 1) as f64) as usize;
            text.push(char::from(SHADES.get(shade).copied().unwrap_or(b' ')));
        }
        text.push('\n');
    }
    text
}
