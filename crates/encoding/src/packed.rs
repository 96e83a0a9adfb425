//! A listpack or a boxed larger form, in one word: the value of a small collection's entry is the pointer alone.
//!
//! The lowest bit tells them apart. A listpack is kept as it is, so that `&mut Listpack` can be handed out; the
//! larger form's address carries the bit.

use crate::listpack::Listpack;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, forget};
use std::ptr::NonNull;

const LARGE: usize = 1;

/// A listpack, or a `T` in a box.
#[repr(transparent)]
pub struct Packed<T>(NonNull<u8>, PhantomData<Box<T>>);

// SAFETY: it owns what it points to, as the listpack and the box would.
unsafe impl<T: Send> Send for Packed<T> {}
// SAFETY: `&Packed` gives out shared references only.
unsafe impl<T: Sync> Sync for Packed<T> {}

/// What a [`Packed`] holds.
pub enum Form<'a, T> {
    Small(&'a Listpack),
    Large(&'a T),
}

/// What a [`Packed`] holds, to be changed.
pub enum FormMut<'a, T> {
    Small(&'a mut Listpack),
    Large(&'a mut T),
}

const _: () = assert!(size_of::<Listpack>() == size_of::<NonNull<u8>>());
const _: () = assert!(align_of::<Listpack>() == align_of::<NonNull<u8>>());

impl<T> Packed<T> {
    pub fn small(list: Listpack) -> Self {
        let list = ManuallyDrop::new(list);
        let pointer = list.pointer();
        debug_assert_eq!(pointer.addr().get() & LARGE, 0);
        Packed(pointer, PhantomData)
    }

    pub fn large(value: Box<T>) -> Self {
        const { assert!(align_of::<T>() > LARGE, "the lowest bit is free") };
        let pointer = NonNull::from(Box::leak(value)).cast::<u8>();
        Packed(pointer.map_addr(|address| address | LARGE), PhantomData)
    }

    #[inline]
    pub fn is_small(&self) -> bool {
        self.0.addr().get() & LARGE == 0
    }

    /// The box's pointer.
    #[inline]
    fn boxed(&self) -> *mut T {
        self.0.as_ptr().map_addr(|address| address & !LARGE).cast::<T>()
    }

    #[inline]
    pub fn form(&self) -> Form<'_, T> {
        if self.is_small() {
            // SAFETY: a listpack is the pointer to its blob and nothing else (the struct is transparent), and without
            // the bit this is such a pointer, owned by `self`.
            Form::Small(unsafe { &*(&raw const self.0).cast::<Listpack>() })
        } else {
            // SAFETY: the address of a live box that `self` owns.
            Form::Large(unsafe { &*self.boxed() })
        }
    }

    #[inline]
    pub fn form_mut(&mut self) -> FormMut<'_, T> {
        if self.is_small() {
            // SAFETY: as in `form`; what the listpack stores there is again the pointer of a listpack.
            FormMut::Small(unsafe { &mut *(&raw mut self.0).cast::<Listpack>() })
        } else {
            // SAFETY: the address of a live box that `self` owns, borrowed exclusively.
            FormMut::Large(unsafe { &mut *self.boxed() })
        }
    }
}

impl<T> Drop for Packed<T> {
    fn drop(&mut self) {
        if self.is_small() {
            // SAFETY: as in `form`; nobody uses it afterwards.
            drop(unsafe { (&raw const self.0).cast::<Listpack>().read() });
        } else {
            // SAFETY: made by `large` from a box, and nobody uses it afterwards.
            drop(unsafe { Box::from_raw(self.boxed()) });
        }
    }
}

impl<T: Clone> Clone for Packed<T> {
    fn clone(&self) -> Self {
        match self.form() {
            Form::Small(list) => Packed::small(list.clone()),
            Form::Large(value) => Packed::large(Box::new(value.clone())),
        }
    }
}

impl<T> Packed<T> {
    /// Takes the large form out, if it is that.
    pub fn into_large(self) -> Option<Box<T>> {
        if self.is_small() {
            return None;
        }
        // SAFETY: made by `large` from a box; `self` is forgotten and gives it up.
        let value = unsafe { Box::from_raw(self.boxed()) };
        forget(self);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_come_out_as_they_went_in() {
        let mut packed: Packed<Vec<u64>> = Packed::small(Listpack::new());
        assert!(packed.is_small() && size_of_val(&packed) == 8);
        for round in 0..100 {
            let FormMut::Small(list) = packed.form_mut() else { panic!("small") };
            list.push_back(format!("element {round}").as_bytes()).unwrap();
        }
        let copy = packed.clone();
        let Form::Small(list) = copy.form() else { panic!("small") };
        assert_eq!(list.len(), 100);
        packed = Packed::large(Box::new(vec![1, 2]));
        let FormMut::Large(numbers) = packed.form_mut() else { panic!("large") };
        numbers.push(3);
        let Form::Large(numbers) = packed.form() else { panic!("large") };
        assert_eq!(numbers, &[1, 2, 3]);
        assert!(copy.into_large().is_none());
        assert_eq!(packed.clone().into_large(), Some(Box::new(vec![1, 2, 3])));
    }
}
