use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::ms;

/// Which runners do so much worse than their peers that others are preferred for a while.
///
/// Peers are the runners that have the same model in memory. A breaker judges a runner by itself; this
/// judges it by the others, and so finds the machine that is three times as slow as its equals, or fails
/// too seldom for its breaker but far more often than anybody else.
///
/// An ejected runner is not gone: when nobody else can serve a request, it is tried. Besides, never more
/// than a share of the peers is out of use at once, for whatever reason.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutlierPolicy {
    /// Fewer peers than this, with enough requests each, are not compared; at least 2.
    pub min_peers: usize,
    /// A runner with fewer requests than this (faults: in the [window](super::HealthPolicy::window); latency:
    /// since it was last ejected) is not judged.
    pub min_requests: u32,
    /// A runner is ejected if its share of successes is below the peers' mean by more than so many
    /// standard deviations…
    pub deviations: f64,
    /// …and by at least this much, 0 to 1. Among few peers that are all well, one fault is many deviations.
    pub least_gap: f64,
    /// A runner is ejected if its time to the first byte (a moving average) is more than so many times the
    /// peers' median…
    pub times_median: f64,
    /// …and at least this long. Below it nobody notices.
    pub least_latency: Duration,
    /// How long the first time. The `n`th time takes `n` times as long; each such time in which the runner
    /// behaves takes one off.
    pub eject_for: Duration,
    /// The longest.
    pub longest: Duration,
    /// The largest share of the peers, 0 to 1, that is out of use because of it, rounded down. Runners with
    /// an open breaker, held back or draining count too.
    pub most: f64,
}

impl OutlierPolicy {
    /// All of the defaults.
    pub const DEFAULT: Self = Self {
        min_peers: Self::MIN_PEERS,
        min_requests: Self::MIN_REQUESTS,
        deviations: Self::DEVIATIONS,
        least_gap: Self::LEAST_GAP,
        times_median: Self::TIMES_MEDIAN,
        least_latency: Self::LEAST_LATENCY,
        eject_for: Self::EJECT_FOR,
        longest: Self::LONGEST,
        most: Self::MOST,
    };
    /// Five, Envoy's `success_rate_minimum_hosts`.
    pub const MIN_PEERS: usize = 5;
    /// Twenty. Envoy asks for a hundred in ten seconds, more than most runners of language models ever serve.
    pub const MIN_REQUESTS: u32 = 20;
    /// 1.9, Envoy's `success_rate_stdev_factor` (1900).
    pub const DEVIATIONS: f64 = 1.9;
    /// A tenth. One bad peer in five is two deviations off however little it is worse: more is needed.
    pub const LEAST_GAP: f64 = 0.1;
    /// Ten times: prompts differ a hundredfold, and so does the time to read them. In the simulator (Mooncake's
    /// conversations, 8 runners that are all alike, load 0.95) three times ejected sound runners that had got a
    /// few long prompts, and doubled the median time to the first token of round-robin.
    pub const TIMES_MEDIAN: f64 = 10.0;
    /// A tenth of a second: what people take for at once.
    pub const LEAST_LATENCY: Duration = Duration::from_millis(100);
    /// 30 s, Envoy's `base_ejection_time`.
    pub const EJECT_FOR: Duration = Duration::from_secs(30);
    /// 300 s, Envoy's `max_ejection_time`.
    pub const LONGEST: Duration = Duration::from_secs(300);
    /// 30 %. Envoy allows 10 %, of fleets that are larger.
    pub const MOST: f64 = 0.3;

    /// How many of so many peers may be out of use.
    fn allowed(&self, peers: usize) -> usize {
        // A fifth of five is one, however a fifth is written in binary.
        let share = (self.most.clamp(0.0, 1.0) * peers as f64 + 1e-9) as usize;
        share.min(peers.saturating_sub(1))
    }
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What is known of one peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    /// Out of use already: such a one is neither judged nor compared with.
    pub(super) out: bool,
    /// Requests in the window that succeeded or failed by the runner's fault.
    pub(super) requests: u64,
    pub(super) faults: u64,
    /// Moving average of the time to the first byte, in seconds, if it has enough requests behind it.
    pub(super) latency: Option<f64>,
}

/// Room for the work of [`judge`], kept so that judging allocates nothing once it is warm.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    latencies: Vec<f64>,
    /// Place of the peer, and how bad it is; latency comes after faults.
    bad: Vec<(usize, f64)>,
}

impl Scratch {
    /// The places of the peers to eject, the worst first.
    pub(super) fn judge(
        &mut self,
        peers: &[Figures],
        policy: &OutlierPolicy,
    ) -> impl Iterator<Item = usize> + use<'_> {
        self.bad.clear();
        self.by_faults(peers, policy);
        self.by_latency(peers, policy);
        self.bad.sort_by(|a, b| b.1.total_cmp(&a.1));
        let out = peers.iter().filter(|peer| peer.out).count();
        let room = policy.allowed(peers.len()).saturating_sub(out);
        self.bad.iter().take(room).map(|(at, _)| *at)
    }

    fn by_faults(&mut self, peers: &[Figures], policy: &OutlierPolicy) {
        let enough = u64::from(policy.min_requests.max(1));
        let rates = || {
            let judged = peers.iter().enumerate().filter(|(_, peer)| !peer.out && peer.requests >= enough);
            judged.map(|(at, peer)| (at, 1.0 - peer.faults as f64 / peer.requests as f64))
        };
        let count = rates().count();
        if count < policy.min_peers.max(2) {
            return;
        }
        let mean = rates().map(|(_, rate)| rate).sum::<f64>() / count as f64;
        let variance = rates().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count as f64;
        let threshold = mean - (policy.deviations * variance.sqrt()).max(policy.least_gap);
        // Any fault is worse than any slowness.
        const FIRST: f64 = 1e12;
        self.bad.extend(
            rates().filter(|(_, rate)| *rate < threshold).map(|(at, rate)| (at, FIRST * (1.0 + mean - rate))),
        );
    }

    fn by_latency(&mut self, peers: &[Figures], policy: &OutlierPolicy) {
        let judged = || {
            let judged = peers.iter().enumerate().filter(|(_, peer)| !peer.out);
            judged.filter_map(|(at, peer)| Some((at, peer.latency?)))
        };
        self.latencies.clear();
        self.latencies.extend(judged().map(|(_, latency)| latency));
        if self.latencies.len() < policy.min_peers.max(2) {
            return;
        }
        let middle = (self.latencies.len() - 1) / 2;
        let (_, median, _) = self.latencies.select_nth_unstable_by(middle, f64::total_cmp);
        let limit = (*median * policy.times_median).max(policy.least_latency.as_secs_f64());
        for (at, latency) in judged().filter(|(_, latency)| *latency > limit) {
            if !self.bad.iter().any(|(known, _)| *known == at) {
                self.bad.push((at, latency / limit));
            }
        }
    }
}

/// Until when one registration is ejected, and how often it was. Times are ms on its clock.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    /// Packed: how often, and until when the last time.
    word: AtomicU64,
    /// Answers that there had been when it was last ejected: its latency is judged by later ones.
    answers: AtomicU32,
}

impl Ejection {
    /// Ejects it. Returns how often it was ejected, this time included.
    pub(super) fn eject(&self, now: u64, answers: u32, policy: &OutlierPolicy) -> u8 {
        let mut times = 0;
        let next = |word: u64| {
            let (before, until) = (word as u8, word >> 8);
            let behaved = now.saturating_sub(until) / ms(policy.eject_for).max(1);
            times = before.saturating_sub(u8::try_from(behaved).unwrap_or(u8::MAX)).saturating_add(1);
            let time = policy.eject_for.saturating_mul(u32::from(times)).min(policy.longest);
            Some(u64::from(times) | now.saturating_add(ms(time)).min(u64::MAX >> 8) << 8)
        };
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        self.answers.store(answers, Ordering::Relaxed);
        times
    }

    /// Until when it is ejected, if it is.
    pub(super) fn until(&self, now: u64) -> Option<u64> {
        let until = self.word.load(Ordering::Acquire) >> 8;
        (now < until).then_some(until)
    }

    /// How many of so many answers there have been since it was last ejected.
    pub(super) fn since(&self, answers: u32) -> u32 {
        answers.wrapping_sub(self.answers.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(requests: u64, faults: u64, latency: f64) -> Figures {
        Figures { out: false, requests, faults, latency: Some(latency) }
    }

    fn judge(peers: &[Figures], policy: &OutlierPolicy) -> Vec<usize> {
        Scratch::default().judge(peers, policy).collect()
    }

    #[test]
    fn who_fails_far_more_often_than_the_others_is_ejected() {
        let policy = OutlierPolicy::default();
        let mut peers = vec![peer(100, 1, 1.0); 5];
        assert_eq!(judge(&peers, &policy), [0usize; 0]);
        peers[3].faults = 40;
        assert_eq!(judge(&peers, &policy), [3]);
        assert_eq!(judge(&peers[1..], &policy), [0usize; 0], "four are too few to compare");
        peers[3].faults = 8;
        assert_eq!(judge(&peers, &policy), [0usize; 0], "two deviations, but a small gap");
        peers[3] = peer(19, 19, 1.0);
        assert_eq!(judge(&peers, &policy), [0usize; 0], "too few requests to tell");
        peers.iter_mut().for_each(|peer| *peer = Figures { faults: 50, requests: 100, ..*peer });
        assert_eq!(judge(&peers, &policy), [0usize; 0], "all alike: nobody is the outlier");
    }

    #[test]
    fn who_is_far_slower_than_the_others_is_ejected() {
        let policy = OutlierPolicy { times_median: 3.0, ..OutlierPolicy::default() };
        let mut peers = vec![peer(0, 0, 0.5); 6];
        peers[2].latency = Some(1.5);
        assert_eq!(judge(&peers, &policy), [0usize; 0], "three times, not more");
        peers[2].latency = Some(1.6);
        assert_eq!(judge(&peers, &policy), [2]);
        peers.iter_mut().for_each(|peer| peer.latency = peer.latency.map(|latency| latency / 50.0));
        assert_eq!(judge(&peers, &policy), [0usize; 0], "32 ms are no harm");
        peers.iter_mut().for_each(|peer| peer.latency = None);
        peers[2].latency = Some(100.0);
        assert_eq!(judge(&peers, &policy), [0usize; 0], "unknown is not zero");
    }

    #[test]
    fn the_worst_go_first_and_others_that_are_out_count() {
        let policy = OutlierPolicy { deviations: 0.5, ..OutlierPolicy::default() };
        let mut peers = vec![peer(100, 0, 0.5); 10];
        peers[1].latency = Some(50.0);
        peers[4].faults = 60;
        peers[7].faults = 80;
        peers[8].latency = Some(5.0);
        assert_eq!(judge(&peers, &policy), [7, 4, 1], "three of ten");
        peers[0].out = true;
        assert_eq!(judge(&peers, &policy), [7, 4]);
        peers[2].out = true;
        peers[3].out = true;
        assert_eq!(judge(&peers, &policy), [0usize; 0]);
    }

    #[test]
    fn each_time_is_longer_until_it_behaves() {
        let (ejection, policy) = (Ejection::default(), OutlierPolicy::default());
        assert_eq!(ejection.until(0), None);
        assert_eq!(ejection.eject(0, 30, &policy), 1);
        assert_eq!((ejection.until(29_999), ejection.until(30_000)), (Some(30_000), None));
        assert_eq!((ejection.since(30), ejection.since(50)), (0, 20));
        assert_eq!(ejection.eject(30_000, 0, &policy), 2);
        assert_eq!(ejection.until(30_000), Some(90_000));
        assert_eq!(ejection.eject(120_000, 0, &policy), 2, "30 s without one take one off");
        assert_eq!(ejection.eject(1_000_000, 0, &policy), 1);
        let mut now = 1_030_000;
        for _ in 0..20 {
            ejection.eject(now, 0, &policy);
            let until = ejection.until(now).unwrap();
            assert!(until - now <= 300_000);
            now = until;
        }
        ejection.eject(now, 0, &policy);
        assert_eq!(ejection.until(now), Some(now + 300_000));
    }

    fn any_peer() -> impl Strategy<Value = Figures> {
        let latency = prop::option::of(0.0..100.0);
        (any::<bool>(), 0u64..200, 0u64..200, latency).prop_map(|(out, requests, faults, latency)| Figures {
            out,
            requests,
            faults: faults.min(requests),
            latency,
        })
    }

    proptest! {
        #[test]
        fn never_more_than_its_share_and_never_the_last(
            peers in prop::collection::vec(any_peer(), 0..40),
            most in -0.5..1.5, deviations in 0.0..3.0, times_median in 0.0..4.0, min_peers in 0usize..6,
        ) {
            let policy = OutlierPolicy {
                most, deviations, times_median, min_peers, min_requests: 1, least_gap: 0.0,
                ..OutlierPolicy::default()
            };
            let chosen = judge(&peers, &policy);
            let out = peers.iter().filter(|peer| peer.out).count();
            let mut distinct = chosen.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), chosen.len());
            prop_assert!(chosen.iter().all(|at| !peers[*at].out));
            if !chosen.is_empty() {
                let share = (most * peers.len() as f64 + 1e-6).floor();
                prop_assert!((out + chosen.len()) as f64 <= share);
                prop_assert!(out + chosen.len() < peers.len());
            }
        }
    }
}
