//! The fuzz target's check, over seeded noise and mutated files: it compiles with every build and finds the shallow faults.

#[path = "../../../fuzz/checks/rdb_payload.rs"]
mod rdb_payload;

/// A small file: one record of each of some types.
const FILE: &[u8] = b"VALKEY080\xfa\x01a\x01b\xfe\x00\xfb\x03\x01\xfc\xff\xff\xff\xff\xff\x00\x00\x00\x00\x01k\x03abc\
\x04\x01h\x01\x01f\x01v\x02\x01s\x02\x01x\xc0\x07\x05\x01z\x01\x01m\x00\x00\x00\x00\x00\x00\xf0\x3f\x16\x02hx\x01\x01f\x01v\
\xff\xff\xff\xff\x00\x00\x00\x00\x12\x01l\x01\x01\x05plain\xff\x00\x00\x00\x00\x00\x00\x00\x00";

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn noise_and_mutated_files() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    rdb_payload::check(&[&[0], FILE].concat());
    for round in 0..30_000u32 {
        let mut input = [&[(round % 3) as u8], FILE].concat();
        for _ in 0..1 + next(&mut state) % 4 {
            let at = 1 + (next(&mut state) as usize) % (input.len() - 1);
            input[at] = next(&mut state) as u8;
        }
        if round % 5 == 0 {
            let cut = 1 + (next(&mut state) as usize) % (input.len() - 1);
            input.truncate(cut);
        }
        // As a payload: the type and the value stand alone.
        if input[0] % 2 == 1 {
            let from = 10 + (next(&mut state) as usize) % 80;
            input.drain(1..from.min(input.len()));
        }
        rdb_payload::check(&input);
    }
}
