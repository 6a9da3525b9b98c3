//! Something for every runner, by the runner's number.

use std::sync::OnceLock;

/// A table by number that grows with the highest number in use, in steps of [`STEP`](Self::STEP), and never moves what
/// is in it, so that readers need no lock.
pub(super) struct Numbered<T> {
    steps: Box<[OnceLock<Box<[T]>>]>,
}

impl<T: Default> Numbered<T> {
    const STEP: usize = 64;

    pub(super) fn new() -> Self {
        Self { steps: (0..(1 << u16::BITS) / Self::STEP).map(|_| OnceLock::new()).collect() }
    }

    /// Allocates when a number is the first of its step, and at no other time.
    #[inline]
    pub(super) fn get(&self, number: u16) -> &T {
        let (step, at) = (usize::from(number) / Self::STEP, usize::from(number) % Self::STEP);
        let make = || (0..Self::STEP).map(|_| T::default()).collect();
        &self.steps[step].get_or_init(make)[at]
    }

    /// Bytes in use.
    pub(super) fn memory(&self) -> usize {
        let made = self.steps.iter().filter(|step| step.get().is_some()).count();
        size_of_val(&*self.steps) + made * Self::STEP * size_of::<T>()
    }
}
