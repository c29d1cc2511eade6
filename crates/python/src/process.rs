//! Values that must not cross a fork: the runtime, connections, locks, descriptors.

use std::marker::PhantomData;
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value that each process makes for itself.
///
/// In a forked child the threads behind the parent's value are gone, and its locks may be held for ever.
/// The child therefore never touches that value, nor drops it, and makes its own.
pub(crate) struct PerProcess<T> {
    made: AtomicPtr<Made<T>>,
    owns: PhantomData<T>,
}

struct Made<T> {
    by: u32,
    value: T,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self {
            made: AtomicPtr::new(ptr::null_mut()),
            owns: PhantomData,
        }
    }
}

impl<T: Send + Sync> PerProcess<T> {
    /// This process's value, if it has made one.
    pub(crate) fn get(&self) -> Option<&T> {
        Self::of_this_process(self.made.load(Ordering::Acquire))
    }

    /// This process's value, made now if there is none yet.
    pub(crate) fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let before = self.made.load(Ordering::Acquire);
        if let Some(value) = Self::of_this_process(before) {
            return Ok(value);
        }
        let by = process::id();
        let own = Box::into_raw(Box::new(Made { by, value: make()? }));
        let published = self
            .made
            .compare_exchange(before, own, Ordering::AcqRel, Ordering::Acquire);
        match published {
            #[allow(unsafe_code, reason = "the cell hands out references to what it points to")]
            // SAFETY: `own` came from a box a moment ago, and is freed only with `self`.
            Ok(_parents) => Ok(unsafe { &(*own).value }),
            #[allow(unsafe_code, reason = "see above")]
            Err(others) => {
                // SAFETY: another thread of this process was first, so `own` was never shared; `others` is
                // freed only with `self`.
                unsafe {
                    drop(Box::from_raw(own));
                    Ok(&(*others).value)
                }
            }
        }
    }

    fn of_this_process<'a>(made: *mut Made<T>) -> Option<&'a T> {
        #[allow(unsafe_code, reason = "the cell hands out references to what it points to")]
        // SAFETY: the pointer is null or comes from a box that is freed only with `self`: within one
        // process it is set once, and a fork's child that replaces it leaks the parent's.
        let made = unsafe { made.as_ref() }?;
        (made.by == process::id()).then_some(&made.value)
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let made = *self.made.get_mut();
        #[allow(unsafe_code, reason = "the box was taken apart to share it")]
        // SAFETY: nobody else holds the pointer while `self` is dropped, and it is null or from a box.
        unsafe {
            if made.as_ref().is_some_and(|made| made.by == process::id()) {
                drop(Box::from_raw(made));
            }
        }
    }
}
