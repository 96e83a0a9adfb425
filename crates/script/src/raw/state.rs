//! A Lua state of our own: its memory comes by lists of free blocks, and ends at a limit.
//!
//! A run of one command allocates some eight objects of up to a hundred bytes, and the collector frees them a few hundred
//! runs later, when the allocator's own caches have gone round. Here the last freed block of a size serves the next object
//! of that size.

use mlua::ffi::{self, lua_State};
use mlua::{Lua, StdLib};
use std::alloc::{Layout, alloc, dealloc, realloc};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};

/// Sizes of listed blocks are multiples of this, which is also their alignment, bytes.
const STEP: usize = 16;
/// Larger blocks go to the allocator at once, bytes.
const SMALL: usize = 256;
/// Lists, one for each multiple of `STEP` up to `SMALL`.
const LISTS: usize = SMALL / STEP;
/// A list keeps at most so many bytes: about what a collection frees at a time.
const KEPT: usize = 64 << 10;

/// A list of free blocks: each holds the next one's address in its first word.
#[derive(Clone, Copy)]
struct List {
    first: *mut c_void,
    /// Blocks.
    len: usize,
}

/// A state's memory.
struct Pool {
    used: Cell<usize>,
    /// 0: none.
    limit: usize,
    lists: [Cell<List>; LISTS],
}

/// A Lua state and its memory, which end together. What `mlua` holds of it must end before.
pub(crate) struct State {
    state: NonNull<lua_State>,
    pool: NonNull<Pool>,
}

impl State {
    /// A fresh state with these libraries beside the base one. It holds at most `limit` bytes (0: any number); `None`: there
    /// is no memory for it.
    pub(crate) fn new(libraries: StdLib, limit: usize) -> Option<(State, mlua::Result<Lua>)> {
        let lists = std::array::from_fn(|_| Cell::new(List { first: ptr::null_mut(), len: 0 }));
        let pool = NonNull::from(Box::leak(Box::new(Pool { used: Cell::new(0), limit, lists })));
        // SAFETY: the pool lives until `drop`, behind the state's end; `allocate` is given nothing else.
        let state = unsafe { NonNull::new(ffi::lua_newstate(allocate, pool.as_ptr().cast())) };
        let Some(state) = state else {
            // SAFETY: it came out of a box, and nobody has it.
            drop(unsafe { Box::from_raw(pool.as_ptr()) });
            return None;
        };
        let own = State { state, pool };
        // SAFETY: the caller lets go of this handle, and of all that it makes by it, before the state.
        let lua = unsafe { Lua::get_or_init_from_ptr(state.as_ptr()) }.clone();
        // SAFETY: raises under `exec_raw`'s protection; the closure owns nothing.
        let base = unsafe {
            lua.exec_raw::<()>((), |state| {
                ffi::luaL_requiref(state, c"_G".as_ptr(), ffi::luaopen_base, 1);
                ffi::lua_settop(state, 0);
            })
        };
        let lua = base.and_then(|()| lua.load_std_libs(libraries)).map(|()| lua);
        Some((own, lua))
    }

    /// Bytes that the state's objects take.
    pub(crate) fn used_memory(&self) -> usize {
        // SAFETY: the pool lives as long as `self`, and is only shared.
        unsafe { self.pool.as_ref() }.used.get()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // SAFETY: both are ours, and nobody uses them any more.
        unsafe {
            ffi::lua_close(self.state.as_ptr());
            drop(Box::from_raw(self.pool.as_ptr()));
        }
    }
}

impl Pool {
    /// A block of that size, at most `SMALL` or the size itself; null: there is no memory.
    fn take(&self, size: usize) -> *mut c_void {
        let Some(cell) = list_of(size).and_then(|list| self.lists.get(list)) else {
            // SAFETY: the size isn't 0.
            return layout(size).map_or(ptr::null_mut(), |layout| unsafe { alloc(layout).cast() });
        };
        let list = cell.get();
        if list.first.is_null() {
            // SAFETY: as above.
            return layout(size).map_or(ptr::null_mut(), |layout| unsafe { alloc(layout).cast() });
        }
        // SAFETY: a free block of the list holds the next one's address, and belongs to nobody.
        let next = unsafe { list.first.cast::<*mut c_void>().read() };
        cell.set(List { first: next, len: list.len - 1 });
        list.first
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It came from `take` or `realloc` with this size, and nobody uses it.
    unsafe fn give(&self, block: *mut c_void, size: usize) {
        if let Some(cell) = list_of(size).and_then(|list| self.lists.get(list)) {
            let List { first, len } = cell.get();
            if len * size < KEPT {
                // SAFETY: a listed block has at least `STEP` bytes and that alignment.
                unsafe { block.cast::<*mut c_void>().write(first) };
                cell.set(List { first: block, len: len + 1 });
                return;
            }
        }
        if let Some(layout) = layout(size) {
            // SAFETY: allocated by this layout, as the contract says.
            unsafe { dealloc(block.cast(), layout) };
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (at, cell) in self.lists.iter().enumerate() {
            let size = (at + 1) * STEP;
            let mut block = cell.get().first;
            while !block.is_null() {
                // SAFETY: free blocks of the list, of its size, each with the next one's address.
                unsafe {
                    let next = block.cast::<*mut c_void>().read();
                    if let Some(layout) = layout(size) {
                        dealloc(block.cast(), layout);
                    }
                    block = next;
                }
            }
        }
    }
}

/// The list of blocks of that size; `None`: not listed. The size isn't 0.
#[inline]
fn list_of(size: usize) -> Option<usize> {
    (size <= SMALL).then(|| (size - 1) / STEP)
}

/// How a block of that size is allocated; `None`: it's too large for anything.
#[inline]
fn layout(size: usize) -> Option<Layout> {
    let size = list_of(size).map_or(size, |list| (list + 1) * STEP);
    Layout::from_size_align(size, STEP).ok()
}

/// Lua's way to memory: allocates, frees and resizes, as `lua_Alloc` is described.
unsafe extern "C" fn allocate(pool: *mut c_void, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
    // SAFETY: `pool` is what `State::new` gave; `block` is null or came from here with its size `old`, and Lua is done with
    // it unless null is returned.
    unsafe {
        let pool = &*pool.cast::<Pool>().cast_const();
        let old = if block.is_null() { 0 } else { old };
        let used = pool.used.get() - old;
        if new == 0 {
            if old != 0 {
                pool.give(block, old);
                pool.used.set(used);
            }
            return ptr::null_mut();
        }
        if new > old && pool.limit != 0 && used.saturating_add(new) > pool.limit {
            return ptr::null_mut();
        }
        let (from, to) = (layout_of_old(old), layout(new));
        let moved = if from.is_some() && from == to {
            block
        } else if old > SMALL && new > SMALL {
            match (from, to) {
                (Some(from), Some(_)) => realloc(block.cast(), from, new).cast(),
                _ => ptr::null_mut(),
            }
        } else {
            let moved = pool.take(new);
            if !moved.is_null() && old != 0 {
                ptr::copy_nonoverlapping(block.cast::<u8>(), moved.cast::<u8>(), old.min(new));
                pool.give(block, old);
            }
            moved
        };
        if !moved.is_null() {
            pool.used.set(used + new);
        }
        moved
    }
}

/// How the block that is resized was allocated; `None`: there is none.
#[inline]
fn layout_of_old(size: usize) -> Option<Layout> {
    if size == 0 { None } else { layout(size) }
}
