use crate::names::ModelId;
use crate::runner::Runner;

/// Chooses for those who wait. The [`AdmissionQueue`](crate::AdmissionQueue) says when and for whom; the
/// dispatcher's routes, router and balancer are behind it.
///
/// Called wherever a slot is freed, and so wherever a [`Reservation`](crate::Reservation) is dropped: it must
/// not wait. It is called by one thread at a time, without a lock; it may reserve and drop reservations as
/// it likes.
pub trait Picker: Send + Sync + 'static {
    /// What one request wants.
    type Wants: Send + Sync + 'static;

    /// What it gets: owns a [`Reservation`](crate::Reservation), and gives it back when it is dropped.
    type Choice: Send + 'static;

    /// Reserves a runner for a request, if there is one with a slot free.
    fn pick(&self, wants: &Self::Wants) -> Option<Self::Choice>;

    /// Whether a slot that this runner has free may be of use to those who wait for this model. Spares the
    /// others a pick. The runner is as it was when the slot was taken: look up what it is now. Who says
    /// `false` too often leaves waiters to the [look](crate::QueuePolicy::look) that is taken anyway.
    fn concerns(&self, model: &ModelId, runner: &Runner) -> bool {
        let _ = (model, runner);
        true
    }

    /// As [`concerns`](Picker::concerns), for one waiter with special wants: whether this runner, which has
    /// freed a slot, may be what [`pick`](Picker::pick) would find.
    fn may_serve(&self, wants: &Self::Wants, runner: &Runner) -> bool {
        let _ = (wants, runner);
        true
    }

    /// Whether nothing was found for this request because every slot that could serve it is taken, so that
    /// nothing would be found for another like it either. `false` if the choice depends on more than what
    /// all requests of a line have in common: then each is asked for itself.
    fn is_full(&self, wants: &Self::Wants) -> bool {
        let _ = wants;
        true
    }

    /// Whether no runner can serve this request, even if all their slots were free, so that there is nothing
    /// to wait for. Asked at every [look](crate::QueuePolicy::look) of those for whom nothing was found.
    fn is_hopeless(&self, wants: &Self::Wants) -> bool {
        let _ = wants;
        false
    }
}
