//! Who is ready to be read or written, and a timer that is exact.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::clock::SECOND;

/// The token of the timer's own event; no socket may have it.
const TIMER: u64 = u64::MAX;

/// What a socket is ready for.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// As it was given to [`Poller::watch`].
    pub token: u64,
    /// There may be something to read, or the end of it.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The other side has ended; reading tells the end after what it has sent.
    pub ended: bool,
}

/// Edge-triggered readiness, and one timer.
///
/// The timer is a timerfd because epoll's own timeout is in whole milliseconds: a chunk that is due every 5 ms would be
/// up to 1 ms late.
pub struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// When the timer goes off; `u64::MAX` for never.
    armed: u64,
    events: Vec<epoll::Event>,
}

impl Poller {
    /// Events that are taken at once.
    const EVENTS: usize = 1024;

    /// Watches nothing yet.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // Edge-triggered, so that what it counts need not be read.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), flags)?;
        Ok(Self { epoll, timer, armed: u64::MAX, events: Vec::with_capacity(Self::EVENTS) })
    }

    /// Tells of this socket from now on, until it is closed.
    ///
    /// # Errors
    /// What the system says.
    pub fn watch(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        use epoll::EventFlags as Flags;
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), flags)?)
    }

    /// Ends a [`wait`](Self::wait) at this time, in nanoseconds of [`now`](super::clock::now); replaces what was said
    /// before. `None`: never.
    ///
    /// # Errors
    /// What the system says.
    pub fn wake_at(&mut self, time: Option<u64>) -> io::Result<()> {
        let time = time.unwrap_or(u64::MAX);
        if time == self.armed {
            return Ok(());
        }
        self.armed = time;
        // Zero would stop the timer instead of letting it go off at once.
        let nanos = if time == u64::MAX { 0 } else { time.max(1) };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Timespec { tv_sec: (nanos / SECOND) as _, tv_nsec: (nanos % SECOND) as _ };
        let when = Itimerspec { it_interval: never, it_value: once };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &when)?;
        Ok(())
    }

    /// Waits until somebody is ready, the timer goes off or `limit` is over; `None` waits as long as it takes.
    /// Whoever is ready is put into `ready`, whose former content is dropped.
    ///
    /// # Errors
    /// What the system says, but for an interruption.
    pub fn wait(&mut self, ready: &mut Vec<Ready>, limit: Option<Duration>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let limit =
            limit.map(|limit| Timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos() as _ });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            use epoll::EventFlags as Flags;
            let (token, flags) = (event.data.u64(), event.flags);
            if token == TIMER {
                self.armed = u64::MAX;
                continue;
            }
            let ended = flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR);
            let readable = ended || flags.contains(Flags::IN);
            ready.push(Ready { token, readable, writable: flags.contains(Flags::OUT), ended });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::clock::now;

    #[test]
    fn the_timer_goes_off_when_it_was_told_to_and_again() {
        let mut poller = Poller::new().unwrap();
        let mut ready = Vec::new();
        for _ in 0..2 {
            let due = now() + 3_300_000;
            poller.wake_at(Some(due)).unwrap();
            poller.wait(&mut ready, Some(Duration::from_secs(60))).unwrap();
            assert!(now() >= due, "too early");
            assert!(now() < due + 30 * SECOND, "the limit was waited for");
        }
    }
}
