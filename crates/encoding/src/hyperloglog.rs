//! HyperLogLog counters as they lie in string values: functions over the value's bytes.
//!
//! The layout is the reference's, so that values travel through GET, DUMP, RDB and replication unchanged:
//!
//! | bytes   | content                                                                  |
//! |---------|--------------------------------------------------------------------------|
//! | 0..4    | `HYLL`                                                                   |
//! | 4       | encoding: 0 dense, 1 sparse                                              |
//! | 5..8    | zero                                                                     |
//! | 8..16   | cached cardinality, little endian; its topmost bit set: cache is stale   |
//! | 16..    | dense: 16384 registers of 6 bits, least significant bits first           |
//! |         | sparse: opcodes that together cover the 16384 registers                  |
//!
//! Sparse opcodes: `00xxxxxx` ZERO, x+1 registers are 0; `01xxxxxx yyyyyyyy` XZERO, xy+1 registers are 0;
//! `1vvvvvxx` VAL, x+1 registers are v+1.
//!
//! Anyone may SET such a value to any bytes: every function here treats its input as hostile and answers
//! [`HllError`] instead of trusting run lengths. Knows nothing of keys or replies.

use std::fmt::Write as _;

/// Bytes before the registers.
pub const HEADER_LEN: usize = 16;
/// log2 of the register count.
pub const PRECISION: u32 = 14;
/// How many registers a counter has.
pub const REGISTERS: usize = 1 << PRECISION;
/// The length of every dense value, in bytes.
pub const DENSE_LEN: usize = HEADER_LEN + REGISTERS * 6 / 8;

/// Hash bits that are left for the run of zeros.
const Q: usize = 64 - PRECISION as usize;
const MAGIC: &[u8; 4] = b"HYLL";
const SEED: u64 = 0xadc8_3b19;
const STALE: u8 = 0x80;
const ZERO_MAX_RUN: usize = 64;
const VAL_MAX_RUN: usize = 4;
/// The highest register that a VAL opcode can hold; more makes the value dense.
const VAL_MAX: u8 = 32;

/// Why a string isn't a usable counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HllError {
    /// No counter at all: magic, encoding or dense length are wrong.
    NotHll,
    /// Header fine, sparse opcodes don't cover the registers exactly.
    Corrupted,
}

impl HllError {
    /// The error reply's text, with its code and without the leading `-`.
    pub fn message(self) -> &'static str {
        match self {
            HllError::NotHll => "WRONGTYPE Key is not a valid HyperLogLog string value.",
            HllError::Corrupted => "INVALIDOBJ Corrupted HLL object detected",
        }
    }
}

impl std::fmt::Display for HllError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for HllError {}

/// The two layouts of the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HllEncoding {
    Dense,
    Sparse,
}

impl HllEncoding {
    /// The name that PFDEBUG ENCODING answers.
    pub fn name(self) -> &'static str {
        match self {
            HllEncoding::Dense => "dense",
            HllEncoding::Sparse => "sparse",
        }
    }
}

/// An empty counter: sparse, one XZERO over all registers, cached cardinality 0.
pub fn create() -> Vec<u8> {
    let mut value = vec![0; HEADER_LEN];
    value[..4].copy_from_slice(MAGIC);
    value[4] = 1;
    push_zeros(&mut value, REGISTERS);
    value
}

/// Checks the header, as every command does first. Sparse opcodes are checked where they are walked.
pub fn check(value: &[u8]) -> Result<HllEncoding, HllError> {
    if value.len() < HEADER_LEN || &value[..4] != MAGIC {
        return Err(HllError::NotHll);
    }
    match value[4] {
        0 if value.len() == DENSE_LEN => Ok(HllEncoding::Dense),
        1 => Ok(HllEncoding::Sparse),
        _ => Err(HllError::NotHll),
    }
}

/// The cardinality in the header unless a register changed since.
pub fn cached_count(value: &[u8]) -> Result<Option<u64>, HllError> {
    check(value)?;
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&value[8..HEADER_LEN]);
    Ok((bytes[7] & STALE == 0).then_some(u64::from_le_bytes(bytes)))
}

/// Writes `count` into the header's cache.
pub fn store_count(value: &mut [u8], count: u64) -> Result<(), HllError> {
    check(value)?;
    value[8..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
    Ok(())
}

/// Marks the cached cardinality as stale.
pub fn invalidate(value: &mut [u8]) -> Result<(), HllError> {
    check(value)?;
    value[15] |= STALE;
    Ok(())
}

/// Estimates the cardinality from the registers; doesn't look at the cache.
pub fn count(value: &[u8]) -> Result<u64, HllError> {
    let mut histogram = Histogram::default();
    match check(value)? {
        HllEncoding::Dense => {
            for_each_dense(value, |_, register| histogram.add(register, 1));
        }
        HllEncoding::Sparse => {
            for run in sparse_runs(value) {
                let run = run?;
                histogram.add(run.value, run.len);
            }
        }
    }
    Ok(histogram.estimate())
}

/// Counts `element`; true if a register grew (then the cache is stale). Becomes dense where the sparse form
/// would pass `sparse_max_bytes` (`hll-sparse-max-bytes`) or couldn't hold the register's value.
pub fn add(value: &mut Vec<u8>, element: &[u8], sparse_max_bytes: usize) -> Result<bool, HllError> {
    let (index, register) = position(element);
    set_register(value, index, register, sparse_max_bytes)
}

/// [`add`] for a dense counter, in place. A sparse one is [`HllError::NotHll`] here: it may have to grow.
pub fn add_dense(value: &mut [u8], element: &[u8]) -> Result<bool, HllError> {
    if check(value)? != HllEncoding::Dense {
        return Err(HllError::NotHll);
    }
    let (index, register) = position(element);
    let changed = dense_raise(value, index, register);
    if changed {
        value[15] |= STALE;
    }
    Ok(changed)
}

/// Raises register `index` to `register`; true if it was lower.
fn set_register(
    value: &mut Vec<u8>,
    index: usize,
    register: u8,
    sparse_max_bytes: usize,
) -> Result<bool, HllError> {
    let changed = match check(value)? {
        HllEncoding::Dense => dense_raise(value, index, register),
        HllEncoding::Sparse => sparse_raise(value, index, register, sparse_max_bytes)?,
    };
    if changed {
        value[15] |= STALE;
    }
    Ok(changed)
}

/// Converts to the dense form; false if it was dense already. The cached cardinality stays.
pub fn to_dense(value: &mut Vec<u8>) -> Result<bool, HllError> {
    if check(value)? == HllEncoding::Dense {
        return Ok(false);
    }
    let mut dense = vec![0; DENSE_LEN];
    dense[..HEADER_LEN].copy_from_slice(&value[..HEADER_LEN]);
    dense[4] = 0;
    for run in sparse_runs(value) {
        let run = run?;
        if run.value > 0 {
            for index in run.start..run.start + run.len {
                dense_raise(&mut dense, index, run.value);
            }
        }
    }
    *value = dense;
    Ok(true)
}

/// The opcodes of a sparse value as PFDEBUG DECODE prints them; None for a dense one.
pub fn decode_sparse(value: &[u8]) -> Result<Option<String>, HllError> {
    if check(value)? == HllEncoding::Dense {
        return Ok(None);
    }
    let mut text = String::new();
    for run in sparse_runs(value) {
        let run = run?;
        let separator = if text.is_empty() { "" } else { " " };
        // Writing into a String cannot fail.
        let _ = match (run.value, run.bytes) {
            (0, 1) => write!(text, "{separator}z:{}", run.len),
            (0, _) => write!(text, "{separator}Z:{}", run.len),
            (register, _) => write!(text, "{separator}v:{register},{}", run.len),
        };
    }
    Ok(Some(text))
}

/// All registers of one counter, or of a union, one byte each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers(Box<[u8]>);

impl Default for Registers {
    fn default() -> Self {
        Registers(vec![0; REGISTERS].into_boxed_slice())
    }
}

impl Registers {
    /// Adds the counter `value` to this union. On error a part of it may have been added.
    pub fn merge(&mut self, value: &[u8]) -> Result<(), HllError> {
        match check(value)? {
            HllEncoding::Dense => for_each_dense(value, |index, register| {
                let slot = &mut self.0[index];
                *slot = (*slot).max(register);
            }),
            HllEncoding::Sparse => {
                for run in sparse_runs(value) {
                    let run = run?;
                    if run.value > 0 {
                        for slot in &mut self.0[run.start..run.start + run.len] {
                            *slot = (*slot).max(run.value);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Estimates the union's cardinality.
    pub fn count(&self) -> u64 {
        let mut histogram = Histogram::default();
        for &register in &self.0 {
            histogram.add(register, 1);
        }
        histogram.estimate()
    }

    /// Raises the registers of `value` to these and marks its cache as stale.
    pub fn store(&self, value: &mut Vec<u8>, sparse_max_bytes: usize) -> Result<(), HllError> {
        check(value)?;
        for (index, &register) in self.0.iter().enumerate() {
            if register > 0 {
                set_register(value, index, register, sparse_max_bytes)?;
            }
        }
        invalidate(value)
    }

    /// The registers, each 0..=63.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// The register of `element` and the value it wants there (1..=51): one more than the zeros that follow the
/// index bits of its hash.
fn position(element: &[u8]) -> (usize, u8) {
    let hash = murmur64a(element, SEED);
    let index = hash as usize & (REGISTERS - 1);
    // The guard bit ends the run of zeros at Q.
    let rest = (hash >> PRECISION) | (1 << Q);
    (index, rest.trailing_zeros() as u8 + 1)
}

/// MurmurHash64A (Austin Appleby, public domain), little-endian words whatever the machine.
fn murmur64a(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> R;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> R)
}

/// How many registers hold each value.
struct Histogram([u64; 64]);

impl Default for Histogram {
    fn default() -> Self {
        Histogram([0; 64])
    }
}

impl Histogram {
    fn add(&mut self, register: u8, times: usize) {
        self.0[usize::from(register) & 63] += times as u64;
    }

    /// Source: Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017),
    /// arXiv:1702.01284, algorithm 6. Operations in this order: the result must not differ by one.
    fn estimate(&self) -> u64 {
        const ALPHA_INF: f64 = 0.721_347_520_444_481_7;
        let m = REGISTERS as f64;
        let mut z = m * tau((m - self.0[Q + 1] as f64) / m);
        for &registers in self.0[1..=Q].iter().rev() {
            z += registers as f64;
            z *= 0.5;
        }
        z += m * sigma(self.0[0] as f64 / m);
        (ALPHA_INF * m * m / z).round() as u64
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        // A corrupted dense value can make x negative and everything NaN: that ends here, too.
        if before == z || z.is_nan() {
            return z / 3.0;
        }
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z || z.is_nan() {
            return z;
        }
    }
}

/// Calls `visit` for every register of a dense value whose length [`check`] has confirmed.
fn for_each_dense(value: &[u8], mut visit: impl FnMut(usize, u8)) {
    // 4 registers are 3 bytes.
    for (group, bytes) in value[HEADER_LEN..].as_chunks::<3>().0.iter().enumerate() {
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
        for lane in 0..4 {
            visit(group * 4 + lane, (word >> (6 * lane)) as u8 & 63);
        }
    }
}

fn dense_raise(value: &mut [u8], index: usize, register: u8) -> bool {
    let start = HEADER_LEN + index / 4 * 3;
    let shift = 6 * (index % 4) as u32;
    let group = &mut value[start..start + 3];
    let word = u32::from_le_bytes([group[0], group[1], group[2], 0]);
    if (word >> shift) as u8 & 63 >= register {
        return false;
    }
    let word = word & !(63 << shift) | u32::from(register) << shift;
    group.copy_from_slice(&word.to_le_bytes()[..3]);
    true
}

/// One opcode of a sparse value.
#[derive(Clone, Copy)]
struct Run {
    /// Where the opcode lies in the value, and its length.
    offset: usize,
    bytes: usize,
    /// The first register it covers and how many.
    start: usize,
    len: usize,
    /// 0 for ZERO and XZERO.
    value: u8,
}

/// Reads the opcode at `offset`; None where the value ends inside of it.
fn read_run(value: &[u8], offset: usize, start: usize) -> Option<Run> {
    let first = *value.get(offset)?;
    let (bytes, len, value) = match first >> 6 {
        0 => (1, usize::from(first & 0x3f) + 1, 0),
        1 => {
            let low = *value.get(offset + 1)?;
            (2, (usize::from(first & 0x3f) << 8 | usize::from(low)) + 1, 0)
        }
        _ => (1, usize::from(first & 3) + 1, (first >> 2 & 0x1f) + 1),
    };
    Some(Run { offset, bytes, start, len, value })
}

/// The runs of a sparse value. The last item is an error unless they cover exactly all registers; no run
/// that passes the last register is ever given out.
fn sparse_runs(value: &[u8]) -> impl Iterator<Item = Result<Run, HllError>> {
    let (mut offset, mut start, mut done) = (HEADER_LEN, 0, false);
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        if offset == value.len() {
            done = true;
            return (start != REGISTERS).then_some(Err(HllError::Corrupted));
        }
        match read_run(value, offset, start) {
            Some(run) if start + run.len <= REGISTERS => {
                offset += run.bytes;
                start += run.len;
                Some(Ok(run))
            }
            _ => {
                done = true;
                Some(Err(HllError::Corrupted))
            }
        }
    })
}

fn val_opcode(register: u8, run: usize) -> u8 {
    0x80 | (register - 1) << 2 | (run - 1) as u8
}

fn push_zeros(out: &mut impl Extend<u8>, run: usize) {
    if run > ZERO_MAX_RUN {
        let len = run - 1;
        out.extend([0x40 | (len >> 8) as u8, len as u8]);
    } else if run > 0 {
        out.extend([(run - 1) as u8]);
    }
}

fn push_val(out: &mut impl Extend<u8>, register: u8, run: usize) {
    if run > 0 {
        out.extend([val_opcode(register, run)]);
    }
}

/// Raises a register of a sparse value, promoting it to dense if it must. The form that results is part of
/// the contract (values are compared and digested across servers): the covering opcode is split, then up to
/// five opcodes from the preceding one on are merged.
fn sparse_raise(
    value: &mut Vec<u8>,
    index: usize,
    register: u8,
    sparse_max_bytes: usize,
) -> Result<bool, HllError> {
    if register > VAL_MAX {
        return promote(value, index, register);
    }
    let (mut offset, mut start, mut previous) = (HEADER_LEN, 0, None);
    let run = loop {
        let run = read_run(value, offset, start).ok_or(HllError::Corrupted)?;
        if index < start + run.len {
            break run;
        }
        previous = Some(offset);
        offset += run.bytes;
        start += run.len;
    };
    if run.value >= register {
        return Ok(false);
    }

    let mut split = smallvec::SmallVec::<[u8; 8]>::new();
    let (before, after) = (index - run.start, run.start + run.len - 1 - index);
    if run.value == 0 {
        push_zeros(&mut split, before);
        push_val(&mut split, register, 1);
        push_zeros(&mut split, after);
    } else {
        push_val(&mut split, run.value, before);
        push_val(&mut split, register, 1);
        push_val(&mut split, run.value, after);
    }
    if split.len() > run.bytes && value.len() + split.len() - run.bytes > sparse_max_bytes {
        return promote(value, index, register);
    }
    value.splice(run.offset..run.offset + run.bytes, split);
    merge_neighbours(value, previous.unwrap_or(HEADER_LEN));
    Ok(true)
}

fn merge_neighbours(value: &mut Vec<u8>, mut offset: usize) {
    for _ in 0..5 {
        let Some(run) = read_run(value, offset, 0) else { return };
        if run.value > 0
            && let Some(next) = read_run(value, offset + 1, 0)
            && next.value == run.value
            && run.len + next.len <= VAL_MAX_RUN
        {
            value[offset] = val_opcode(run.value, run.len + next.len);
            value.remove(offset + 1);
            // The merged run may take in its next neighbour as well.
            continue;
        }
        offset += run.bytes;
    }
}

fn promote(value: &mut Vec<u8>, index: usize, register: u8) -> Result<bool, HllError> {
    to_dense(value)?;
    Ok(dense_raise(value, index, register))
}

/// What PFSELFTEST does: packed registers against plain ones, sparse against dense, and the estimate's error
/// against the truth. Errors are the reply's text. Some 300 ms in optimized builds.
pub fn self_test() -> Result<(), String> {
    let mut rng = kara_base::rng::Rng::new(0x5e1f);
    let (mut dense, mut plain) = (create(), Registers::default());
    to_dense(&mut dense).map_err(|e| e.to_string())?;
    for _ in 0..1000 {
        for _ in 0..64 {
            let (index, register) = (rng.below(REGISTERS as u64) as usize, rng.below(64) as u8);
            dense_raise(&mut dense, index, register);
            plain.0[index] = plain.0[index].max(register);
        }
    }
    let mut unpacked = Registers::default();
    unpacked.merge(&dense).map_err(|e| e.to_string())?;
    if let Some(index) = (0..REGISTERS).find(|&i| plain.0[i] != unpacked.0[i]) {
        let (want, have) = (plain.0[index], unpacked.0[index]);
        return Err(format!("TESTFAILED Register {index} should be {want} but is {have}"));
    }

    let (mut dense, mut sparse) = (create(), create());
    to_dense(&mut dense).map_err(|e| e.to_string())?;
    let relative_error = 1.04 / (REGISTERS as f64).sqrt();
    let (seed, mut checkpoint) = (rng.next_u64(), 1u64);
    for n in 1..=1_000_000u64 {
        let element = (seed ^ n).to_le_bytes();
        add_dense(&mut dense, &element).map_err(|e| e.to_string())?;
        add(&mut sparse, &element, 3000).map_err(|e| e.to_string())?;
        if n != checkpoint {
            continue;
        }
        checkpoint *= 10;
        let estimate = count(&dense).map_err(|e| e.to_string())?;
        if count(&sparse) != Ok(estimate) {
            return Err("TESTFAILED dense/sparse disagree".to_owned());
        }
        // Six standard deviations; near one element the estimate may be off by one.
        let allowed = (relative_error * 6.0 * n as f64).ceil() as u64 + u64::from(n == 10);
        if estimate.abs_diff(n) > allowed {
            return Err(format!("TESTFAILED Too big error. card:{n} abserr:{}", estimate.abs_diff(n)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registers(value: &[u8]) -> Registers {
        let mut all = Registers::default();
        all.merge(value).unwrap();
        all
    }

    #[test]
    fn golden_small_counter() {
        let mut value = create();
        assert_eq!(&value, b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff");
        assert_eq!(cached_count(&value), Ok(Some(0)));
        for element in ["a", "b", "c"] {
            assert_eq!(add(&mut value, element.as_bytes(), 3000), Ok(true));
        }
        assert_eq!(add(&mut value, b"a", 3000), Ok(false));
        // What a running 9.1.2 prints for PFADD h a b c.
        let text = decode_sparse(&value).unwrap().unwrap();
        assert_eq!(text, "Z:8436 v:1,1 Z:4274 v:2,1 Z:3068 v:1,1 Z:603");
        assert_eq!(cached_count(&value), Ok(None));
        assert_eq!(count(&value), Ok(3));
        store_count(&mut value, 3).unwrap();
        assert_eq!(cached_count(&value), Ok(Some(3)));
    }

    #[test]
    fn self_test_passes() {
        assert_eq!(self_test(), Ok(()));
    }

    #[test]
    fn promotion_by_size_and_by_value() {
        let mut value = create();
        let mut n = 0u32;
        while check(&value) == Ok(HllEncoding::Sparse) {
            assert!(value.len() <= 3000);
            add(&mut value, &n.to_le_bytes(), 3000).unwrap();
            n += 1;
        }
        assert!(n > 1000, "{n}");
        let mut value = create();
        assert_eq!(set_register(&mut value, 9, 33, 3000), Ok(true));
        assert_eq!(check(&value), Ok(HllEncoding::Dense));
        assert_eq!(registers(&value).as_slice()[9], 33);
    }

    #[test]
    fn corrupted_values_are_errors() {
        let header = &create()[..HEADER_LEN];
        for opcodes in [
            &b""[..],
            b"\x7f",             // an XZERO cut in half
            b"\x7f\xfe",         // one register short
            b"\x7f\xff\x00",     // one too many
            b"\x7f\xff\x7f\xff", // all twice
            b"\xff\xff\xff",
        ] {
            let mut value = [header, opcodes].concat();
            assert_eq!(count(&value), Err(HllError::Corrupted), "{opcodes:?}");
            assert_eq!(Registers::default().merge(&value), Err(HllError::Corrupted));
            assert_eq!(to_dense(&mut value), Err(HllError::Corrupted));
            assert_eq!(set_register(&mut value, 3, 40, 3000), Err(HllError::Corrupted));
        }
        let mut short = [header, b"\x80"].concat();
        assert_eq!(set_register(&mut short, 16383, 3, 3000), Err(HllError::Corrupted));
        for value in [&b"HYLL"[..], b"", b"HYLX\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff", &[b'H'; DENSE_LEN]] {
            assert_eq!(count(value), Err(HllError::NotHll));
        }
        let mut unknown = create();
        unknown[4] = 2;
        assert_eq!(count(&unknown), Err(HllError::NotHll));
        unknown[4] = 0;
        assert_eq!(count(&unknown), Err(HllError::NotHll));
    }

    proptest! {
        #[test]
        fn sparse_equals_plain_registers(
            writes in prop::collection::vec((0usize..600, 1u8..=51), 1..200),
            limit in 20usize..400,
        ) {
            let (mut value, mut plain) = (create(), Registers::default());
            for (index, register) in writes {
                // Spread over the whole range but with neighbours, so that runs split and merge.
                let index = index % 16 + index / 16 * 400;
                let grew = plain.0[index] < register;
                prop_assert_eq!(set_register(&mut value, index, register, limit), Ok(grew));
                plain.0[index] = plain.0[index].max(register);
                prop_assert_eq!(&registers(&value), &plain);
            }
            prop_assert_eq!(count(&value).unwrap(), plain.count());
            let mut dense = value.clone();
            to_dense(&mut dense).unwrap();
            prop_assert_eq!(&registers(&dense), &plain);
            let mut copy = create();
            plain.store(&mut copy, limit).unwrap();
            prop_assert_eq!(&registers(&copy), &plain);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            encoding in 0u8..3,
            tail in prop::collection::vec(any::<u8>(), 0..64),
            dense in any::<bool>(),
            element in any::<[u8; 3]>(),
        ) {
            let mut value = create();
            value.truncate(HEADER_LEN);
            value[4] = encoding;
            value.extend(&tail);
            if dense {
                value.resize(DENSE_LEN, *tail.first().unwrap_or(&0));
            }
            let _ = decode_sparse(&value);
            let _ = count(&value);
            let _ = Registers::default().merge(&value);
            let _ = add(&mut value.clone(), &element, 3000);
            let _ = set_register(&mut value.clone(), 16383, 7, 3000);
            let _ = to_dense(&mut value);
        }
    }
}
