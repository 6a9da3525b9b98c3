use super::*;

fn gpus(gpus: f64) -> Resources {
    Resources { gpus, ..Resources::default() }
}

/// A ledger with its own clock, in milliseconds.
struct Setup {
    ledger: Ledger,
    born: Instant,
    now: u64,
}

impl Setup {
    fn new() -> Self {
        let born = Instant::now();
        // Long before, nothing happened.
        Self { ledger: Ledger::new(born), born, now: 60_000 }
    }

    fn at(&self) -> Instant {
        self.born + Duration::from_millis(self.now)
    }

    fn goes(&mut self, ms: u64) -> &mut Self {
        self.now += ms;
        self
    }

    /// A report that was asked for so many milliseconds ago.
    fn report(&self, total: Option<f64>, available: f64, age: u64) -> bool {
        let report = ResourceReport {
            total: total.map(gpus),
            available: Some(gpus(available)),
            max_age: Some(Duration::from_millis(age)),
        };
        self.ledger.report(&report, self.at())
    }

    fn take(&self, need: f64) -> Option<Moment> {
        self.ledger.take_with(&gpus(need), self.at(), || Some(())).map(|(moment, ())| moment)
    }

    fn end(&self, need: f64, promised: Moment) {
        self.ledger.give_back(&gpus(need), promised, false, self.at());
    }

    fn cut(&self, need: f64, promised: Moment) {
        self.ledger.give_back(&gpus(need), promised, true, self.at());
    }

    fn free(&self) -> f64 {
        self.ledger.available().unwrap().gpus
    }
}

#[test]
fn what_is_taken_counts_at_once_and_a_report_does_not_count_it_twice() {
    let mut setup = Setup::new();
    assert!(setup.take(1.0).is_none() && setup.ledger.available().is_none(), "unknown is not free");
    assert!(setup.report(Some(2.0), 2.0, 1));
    let taken = setup.take(1.5).unwrap();
    assert!(setup.take(1.0).is_none());
    assert_eq!(setup.free(), 0.5);
    assert!(!setup.goes(2_000).report(Some(2.0), 0.5, 1));
    assert_eq!(setup.free(), 0.5);
    setup.end(1.5, taken);
    assert_eq!(setup.free(), 2.0);
}

#[test]
fn all_or_nothing() {
    let ledger = Ledger::new(Instant::now());
    let all = Resources { cpus: 4.0, gpus: 1.0, memory_gb: 8.0 };
    let report = ResourceReport { available: Some(all), ..ResourceReport::default() };
    assert!(ledger.report(&report, Instant::now()));
    let take = |need: &Resources, slot: Option<()>| ledger.take_with(need, Instant::now(), || slot);
    assert!(take(&Resources { memory_gb: 9.0, ..all }, Some(())).is_none());
    assert!(take(&all, None).is_none(), "there is no slot");
    assert_eq!(ledger.available(), Some(all));
    assert!(take(&all, Some(())).is_some());
    assert!(!ledger.covers(&gpus(0.001)) && ledger.covers(&gpus(0.0)));
}

#[test]
fn a_report_from_before_a_request_frees_nothing() {
    let mut setup = Setup::new();
    setup.report(None, 1.0, 1);
    for _ in 0..3 {
        // Asked for before the request was sent, and arriving after it.
        setup.goes(2_000);
        let taken = setup.take(1.0).unwrap();
        setup.goes(500).report(None, 1.0, 1_000);
        assert_eq!((setup.free(), setup.take(1.0)), (0.0, None));
        setup.goes(100).end(1.0, taken);
        assert_eq!(setup.free(), 1.0);
    }
}

#[test]
fn what_others_take_and_give_back_is_seen() {
    let mut setup = Setup::new();
    setup.report(Some(4.0), 4.0, 1);
    let ours = setup.take(1.0).unwrap();
    assert!(!setup.goes(3_000).report(Some(4.0), 0.0, 1), "three are others'");
    assert_eq!(setup.free(), 0.0);
    setup.goes(10).end(1.0, ours);
    assert_eq!(setup.free(), 1.0);
    assert!(setup.goes(3_000).report(Some(4.0), 3.0, 1));
    assert_eq!(setup.free(), 3.0);
}

#[test]
fn what_others_give_back_is_free_while_ours_go_on() {
    let mut setup = Setup::new();
    setup.report(None, 1.0, 1);
    let ours = setup.take(1.0).unwrap();
    assert!(setup.goes(5_000).report(None, 1.0, 1), "one of others' has ended");
    let next = setup.take(1.0).expect("it was seen free, and ours is not in it or long done");
    assert_eq!(setup.take(1.0), None);
    // Whether ours had ended before the report, nobody knows: the next will say.
    setup.goes(10).end(1.0, ours);
    assert_eq!(setup.free(), 0.0);
    setup.goes(2_000).report(None, 1.0, 1);
    assert_eq!(setup.free(), 1.0);
    setup.end(1.0, next);
}

#[test]
fn of_a_request_that_is_broken_off_a_report_has_to_say_that_it_is_gone() {
    let mut setup = Setup::new();
    setup.report(None, 2.0, 1);
    let taken = setup.take(1.0).unwrap();
    setup.goes(5_000).cut(1.0, taken);
    assert_eq!(setup.free(), 1.0, "the runner may be at it");
    assert!(!setup.goes(500).report(None, 1.0, 1), "it still is");
    assert_eq!(setup.free(), 1.0);
    assert!(!setup.goes(2_000).report(None, 1.0, 1), "and goes on");
    assert_eq!(setup.free(), 1.0);
    assert!(setup.goes(2_000).report(None, 2.0, 1));
    assert_eq!(setup.free(), 2.0);
}

#[test]
fn what_was_broken_off_counts_while_reports_are_not_clear_about_it_but_not_forever() {
    let mut setup = Setup::new();
    setup.report(None, 2.0, 1);
    let taken = setup.take(1.0).unwrap();
    setup.cut(1.0, taken);
    for _ in 0..15 {
        // Is it this one that is not in the report, or that one that is gone?
        let next = setup.take(1.0).unwrap();
        assert_eq!(setup.take(1.0), None);
        assert!(!setup.goes(100).report(None, 1.0, 100));
        setup.end(1.0, next);
        assert_eq!(setup.goes(1_900).free(), 1.0);
    }
    setup.goes(500).report(None, 1.0, 1);
    assert_eq!(setup.free(), 1.0, "now one is clear: others' have it");
    setup.goes(1).report(None, 2.0, 1);
    assert_eq!(setup.free(), 2.0);
}

#[test]
fn a_runner_that_comes_back_larger_or_smaller() {
    let mut setup = Setup::new();
    setup.report(Some(2.0), 2.0, 1);
    assert!(!setup.goes(9_000).report(Some(1.0), 1.0, 1));
    assert_eq!((setup.free(), setup.ledger.total()), (1.0, Some(gpus(1.0))));
    assert!(setup.goes(9_000).report(Some(4.0), 4.0, 1));
    assert_eq!((setup.free(), setup.ledger.total()), (4.0, Some(gpus(4.0))));
    // It restarted under a request that has not noticed.
    setup.take(4.0).unwrap();
    assert!(setup.goes(9_000).report(Some(4.0), 4.0, 1));
    assert_eq!(setup.free(), 4.0);
}

#[test]
fn a_report_too_old_to_tell_says_at_least_what_there_was() {
    let mut setup = Setup::new();
    setup.report(None, 3.0, 1);
    let taken = setup.take(1.0).unwrap();
    setup.goes(1_000).report(None, 3.0, 60_000);
    assert_eq!(setup.free(), 2.0);
    setup.end(1.0, taken);
    assert_eq!(setup.free(), 3.0);
}

#[test]
fn a_runner_that_says_nothing_more_is_unknown_until_it_does() {
    let mut setup = Setup::new();
    setup.report(Some(2.0), 2.0, 1);
    let taken = setup.take(1.0).unwrap();
    assert!(!setup.ledger.report(&ResourceReport::default(), setup.at()));
    assert!(setup.ledger.available().is_none() && setup.take(0.5).is_none());
    assert!(!setup.ledger.might_cover(&gpus(0.5)));
    assert!(setup.goes(10).report(None, 1.0, 1));
    assert_eq!(setup.free(), 1.0);
    setup.end(1.0, taken);
    assert_eq!(setup.free(), 2.0);
}

#[test]
fn what_could_be_free_is_what_there_is_if_that_is_known() {
    let setup = Setup::new();
    assert!(!setup.ledger.might_cover(&gpus(0.0)), "of this one nothing is known");
    setup.report(None, 0.0, 1);
    assert!(setup.ledger.might_cover(&gpus(1.0)), "all of it may be taken now");
    setup.report(Some(2.0), 0.0, 1);
    assert!(setup.ledger.might_cover(&gpus(2.0)) && !setup.ledger.might_cover(&gpus(3.0)));
}

#[test]
fn the_operators_word_holds_until_the_runner_speaks() {
    let mut setup = Setup::new();
    setup.ledger.assume(&gpus(2.0));
    assert!(!setup.ledger.report(&ResourceReport::default(), setup.at()));
    let taken = setup.take(2.0).unwrap();
    assert!(setup.ledger.might_cover(&gpus(2.0)) && !setup.ledger.might_cover(&gpus(3.0)));
    setup.cut(2.0, taken);
    assert_eq!(setup.free(), 2.0, "no report will ever say so");
    setup.goes(1_000).report(None, 1.0, 1);
    assert_eq!(setup.free(), 1.0);
}

#[test]
fn shares_of_one_add_up() {
    let setup = Setup::new();
    setup.report(Some(1.0), 1.0, 1);
    let thirds: Vec<_> = (0..3).map_while(|_| setup.take(0.333)).collect();
    assert_eq!((thirds.len(), setup.take(0.333)), (3, None));
    thirds.into_iter().for_each(|third| setup.end(0.333, third));
    assert_eq!(setup.free(), 1.0);
}
