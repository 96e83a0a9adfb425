//! The growable byte buffer of a string that doesn't live inside its entry: one thin pointer to a block that starts
//! with its length and capacity, so that the entry spends 8 bytes on it and not 24.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;

use kara_encoding::size_class::size_class;

/// The block's first 16 bytes; `cap` bytes of data follow, of which the first `len` are initialized.
#[repr(C)]
struct Head {
    len: usize,
    cap: usize,
}

const HEAD: usize = size_of::<Head>();

/// Up to here a growing buffer doubles; beyond it grows by a quarter, as spare megabytes cost more than copies.
const DOUBLING_MAX: usize = 1 << 20;

/// The allocator refused a buffer of that many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    pub bytes: usize,
}

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "can't allocate {} bytes", self.bytes)
    }
}

impl std::error::Error for OutOfMemory {}

/// An owned, growable byte string behind one thin pointer.
pub(super) struct StrBuf(NonNull<Head>);

// SAFETY: the block is owned by exactly one StrBuf and holds plain bytes.
unsafe impl Send for StrBuf {}

impl StrBuf {
    /// A buffer with room for `cap` bytes, rounded up to what the allocator would spend anyway.
    pub fn with_capacity(cap: usize) -> StrBuf {
        match StrBuf::try_with_capacity(cap) {
            Ok(buf) => buf,
            Err(_) => handle_alloc_error(layout(cap).unwrap_or(Layout::new::<Head>())),
        }
    }

    fn try_with_capacity(cap: usize) -> Result<StrBuf, OutOfMemory> {
        let layout = layout(cap).ok_or(OutOfMemory { bytes: cap })?;
        // SAFETY: the layout's size is at least HEAD, so not zero.
        let block = unsafe { alloc(layout) }.cast::<Head>();
        let head = NonNull::new(block).ok_or(OutOfMemory { bytes: cap })?;
        // SAFETY: the block is fresh, aligned for Head and at least that long.
        unsafe { head.write(Head { len: 0, cap: layout.size() - HEAD }) };
        Ok(StrBuf(head))
    }

    /// A buffer that holds a copy of `bytes` and no more spare room than the allocation class leaves.
    pub fn from_bytes(bytes: &[u8]) -> StrBuf {
        let mut buf = StrBuf::with_capacity(bytes.len());
        buf.append(bytes);
        buf
    }

    pub fn into_raw(self) -> *mut u8 {
        let raw = self.0.as_ptr().cast();
        std::mem::forget(self);
        raw
    }

    /// # Safety
    /// `raw` comes from `into_raw` and isn't used again as an owner.
    pub unsafe fn from_raw(raw: *mut u8) -> StrBuf {
        // SAFETY: into_raw's pointers are never null.
        StrBuf(unsafe { NonNull::new_unchecked(raw.cast()) })
    }

    pub fn len(&self) -> usize {
        // SAFETY: the head is initialized for the block's whole life.
        unsafe { (*self.0.as_ptr()).len }
    }

    pub fn capacity(&self) -> usize {
        // SAFETY: as in `len`.
        unsafe { (*self.0.as_ptr()).cap }
    }

    /// Bytes the allocator spends on the block.
    pub fn allocated(&self) -> usize {
        HEAD + self.capacity()
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: the data begin right behind the head, inside (or one past the end of) the block.
        unsafe { self.0.as_ptr().cast::<u8>().add(HEAD) }
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are initialized and live as long as the borrow.
        unsafe { std::slice::from_raw_parts(self.data(), self.len()) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.data(), self.len()) }
    }

    fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.capacity());
        // SAFETY: as in `len`; the borrow is unique.
        unsafe { (*self.0.as_ptr()).len = len }
    }

    /// Makes room for `total` bytes altogether, with amortised growth.
    pub fn try_reserve(&mut self, total: usize) -> Result<(), OutOfMemory> {
        let cap = self.capacity();
        if total <= cap {
            return Ok(());
        }
        let ample = match total {
            // Whether it will grow isn't known yet.
            _ if self.len() == 0 => total,
            0..DOUBLING_MAX => total * 2,
            _ => total.saturating_add(total / 4),
        };
        let new = layout(ample).ok_or(OutOfMemory { bytes: total })?;
        let old = layout(cap).ok_or(OutOfMemory { bytes: total })?;
        // SAFETY: the block was allocated with `old` (a capacity maps to the layout it came from), and the new size
        // is not zero.
        let block = unsafe { realloc(self.0.as_ptr().cast(), old, new.size()) }.cast::<Head>();
        self.0 = NonNull::new(block).ok_or(OutOfMemory { bytes: total })?;
        // SAFETY: realloc kept the head, and the block is `new.size()` long.
        unsafe { (*self.0.as_ptr()).cap = new.size() - HEAD };
        Ok(())
    }

    fn reserve(&mut self, total: usize) {
        if self.try_reserve(total).is_err() {
            handle_alloc_error(layout(total).unwrap_or(Layout::new::<Head>()));
        }
    }

    pub fn append(&mut self, bytes: &[u8]) {
        let len = self.len();
        let total = len.saturating_add(bytes.len());
        self.reserve(total);
        // SAFETY: there is room for `total` bytes; `bytes` can't overlap a block that is borrowed uniquely.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.data().add(len), bytes.len()) };
        self.set_len(total);
    }

    /// Cuts the string, or lengthens it with zero bytes.
    pub fn resize(&mut self, len: usize) {
        let old = self.len();
        if len > old {
            self.reserve(len);
            // SAFETY: there is room for `len` bytes.
            unsafe { std::ptr::write_bytes(self.data().add(old), 0, len - old) };
        }
        self.set_len(len);
    }

    /// Gives back what more than doubles the memory that the content needs.
    pub fn trim(&mut self) {
        if self.capacity() > 2 * self.len() + HEAD {
            *self = StrBuf::from_bytes(self.as_slice());
        }
    }
}

impl Drop for StrBuf {
    fn drop(&mut self) {
        if let Some(layout) = layout(self.capacity()) {
            // SAFETY: the block was allocated with this layout and is dropped once.
            unsafe { dealloc(self.0.as_ptr().cast(), layout) }
        }
    }
}

/// The block's layout for that capacity. Idempotent: the capacity of a block maps to the layout it was made with.
fn layout(cap: usize) -> Option<Layout> {
    let size = size_class(cap.checked_add(HEAD).filter(|&n| n < 1 << 47)?);
    Layout::from_size_align(size, align_of::<Head>()).ok()
}
