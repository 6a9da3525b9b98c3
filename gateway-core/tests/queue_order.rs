//! Who is next: classes that age, tenants in turn, nobody lost, nobody in another's way.

use std::collections::HashMap;
use std::time::Duration;

use gateway_core::{
    Arrival, Full, LaneId, ModelId, Priority, QueuePolicy, Round, ServiceOrder, Tenant, Ticket,
};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::Instant;

const ANY: usize = usize::MAX;

fn arrival(model: u8, tenant: u8, priority: Priority) -> Arrival {
    Arrival {
        model: Some(ModelId::new(format!("m{model}")).unwrap()),
        tenant: Some(Tenant::new(format!("t{tenant}")).unwrap()),
        priority,
        special: false,
    }
}

fn normal(tenant: u8) -> Arrival {
    arrival(0, tenant, Priority::Normal)
}

fn special(tenant: u8) -> Arrival {
    Arrival { special: true, ..normal(tenant) }
}

type Order<T> = ServiceOrder<T>;

fn lanes<T>(order: &Order<T>) -> Vec<LaneId> {
    order.lanes().map(|(id, _)| id).collect()
}

/// Serves the next of all lanes.
fn serve<T: Copy>(order: &mut Order<T>, now: Instant) -> Option<T> {
    let mut round = order.round(lanes(order), now, ANY);
    let (ticket, what) = order.next(&mut round).map(|(ticket, what)| (ticket, *what))?;
    order.serve(ticket).expect("who is named waits");
    Some(what)
}

fn serve_all<T: Copy>(order: &mut Order<T>, now: Instant) -> Vec<T> {
    std::iter::from_fn(|| serve(order, now)).collect()
}

#[test]
fn classes_then_tenants_in_turn_then_arrival() {
    let now = Instant::now();
    let mut order = Order::new(QueuePolicy::default());
    for (tenant, priority, name) in [
        (0, Priority::Low, "a-low"),
        (0, Priority::Normal, "a1"),
        (0, Priority::Normal, "a2"),
        (0, Priority::Normal, "a3"),
        (1, Priority::Normal, "b1"),
        (1, Priority::Normal, "b2"),
        (2, Priority::High, "c-high"),
        (2, Priority::Normal, "c1"),
    ] {
        order.enter(arrival(0, tenant, priority), now, name).unwrap();
    }
    assert_eq!(order.asked(Priority::Normal), 6);
    assert_eq!(serve_all(&mut order, now), ["c-high", "a1", "b1", "c1", "a2", "b2", "a3", "a-low"]);
    assert!(order.is_empty() && lanes(&order).is_empty() && order.asked(Priority::Normal) == 0);
}

#[test]
fn who_waits_long_rises() {
    let start = Instant::now();
    let mut order = Order::new(QueuePolicy::default());
    order.enter(arrival(0, 0, Priority::Low), start, "old").unwrap();
    let enter = |order: &mut Order<_>, after: Duration| {
        order.enter(arrival(0, 1, Priority::High), start + after, "new").unwrap();
        start + after
    };
    let now = enter(&mut order, 2 * QueuePolicy::AGEING - Duration::from_millis(1));
    assert_eq!(serve(&mut order, now), Some("new"));
    // The same class now, and its tenant's line is the older one of the two.
    let now = 2 * QueuePolicy::AGEING;
    order.round([], start + now, ANY);
    let now = enter(&mut order, now);
    assert_eq!(serve_all(&mut order, now), ["old", "new"]);
}

#[test]
fn a_tenants_own_go_by_arrival_once_they_are_of_one_class() {
    let start = Instant::now();
    let mut order = Order::new(QueuePolicy::default());
    order.enter(normal(0), start, 1).unwrap();
    order.enter(arrival(0, 0, Priority::High), start + Duration::from_secs(9), 2).unwrap();
    assert_eq!(serve_all(&mut order, start + QueuePolicy::AGEING), [1, 2]);
}

#[test]
fn ageing_can_make_classes_alike_or_strict() {
    let start = Instant::now();
    for (ageing, first) in [(Duration::ZERO, "low"), (Duration::MAX, "high")] {
        let mut order = Order::new(QueuePolicy { ageing, ..QueuePolicy::default() });
        order.enter(arrival(0, 0, Priority::Low), start, "low").unwrap();
        order.round([], start, ANY);
        order.enter(arrival(0, 1, Priority::High), start, "high").unwrap();
        assert_eq!(serve(&mut order, start + Duration::from_secs(3600)), Some(first), "{ageing:?}");
    }
}

#[test]
fn lanes_do_not_block_each_other_and_take_turns() {
    let now = Instant::now();
    let mut order = Order::new(QueuePolicy::default());
    for turn in 0..3 {
        order.enter(arrival(0, 0, Priority::Normal), now, (0, turn)).unwrap();
        order.enter(arrival(1, 0, Priority::Normal), now, (1, turn)).unwrap();
    }
    let mut round = order.round(lanes(&order), now, ANY);
    let mut served = Vec::new();
    while let Some((ticket, &(model, turn))) = order.next(&mut round) {
        if model == 0 {
            round.refused();
        } else {
            served.push((model, turn));
            order.serve(ticket);
        }
    }
    assert_eq!(served, [(1, 0), (1, 1), (1, 2)]);
    order.enter(arrival(1, 0, Priority::Normal), now, (1, 3)).unwrap();
    order.enter(arrival(1, 0, Priority::Normal), now, (1, 4)).unwrap();
    assert_eq!(serve_all(&mut order, now), [(0, 0), (1, 3), (0, 1), (1, 4), (0, 2)]);
}

#[test]
fn lanes_that_come_and_go_do_not_overtake_one_that_stays() {
    let now = Instant::now();
    let mut order = Order::new(QueuePolicy::default());
    order.enter(arrival(0, 0, Priority::Normal), now, 0).unwrap();
    let mut served = Vec::new();
    for model in [1, 2, 1, 2, 1, 2] {
        order.enter(arrival(model, 1, Priority::Normal), now, model).unwrap();
        served.push(serve(&mut order, now).unwrap());
    }
    assert!(served[..2].contains(&0), "{served:?}");
}

#[test]
fn tenants_that_come_and_go_do_not_overtake_one_that_stays() {
    let now = Instant::now();
    let mut order = Order::new(QueuePolicy::default());
    order.enter(normal(0), now, 0).unwrap();
    let mut served = Vec::new();
    for tenant in [1, 2, 1, 2] {
        order.enter(normal(tenant), now, tenant).unwrap();
        served.push(serve(&mut order, now).unwrap());
    }
    assert_eq!(served[0], 0);
}

#[test]
fn special_wants_stand_in_nobodys_way() {
    let now = Instant::now();
    let mut order = Order::new(QueuePolicy::default());
    for (arrival, name) in [
        (special(0), "gpu 0"),
        (normal(0), "plain 0"),
        (normal(1), "plain 1"),
        (special(1), "gpu 1"),
        (special(2), "cpu 2"),
    ] {
        order.enter(arrival, now, name).unwrap();
    }
    let mut asked = Vec::new();
    let mut round = order.round(lanes(&order), now, ANY);
    while let Some((ticket, name)) = order.next(&mut round) {
        asked.push(*name);
        match *name {
            "plain 0" | "cpu 2" => drop(order.serve(ticket)),
            _ => round.refused(),
        }
    }
    // `gpu 0` is asked again in its tenant's next turn.
    assert_eq!(asked, ["gpu 0", "plain 0", "plain 1", "gpu 1", "cpu 2", "gpu 0"]);
    assert_eq!(order.len(), 3);
    assert_eq!(order.waiting(lanes(&order)[0]), (3, 1));
}

#[test]
fn special_wants_in_vain_end_after_so_many() {
    let now = Instant::now();
    let mut order = Order::new(QueuePolicy::default());
    for tenant in 0..6 {
        order.enter(special(tenant), now, "special").unwrap();
    }
    order.enter(normal(9), now, "plain").unwrap();
    let mut asked = 0;
    let mut round = order.round(lanes(&order), now, 4);
    while let Some((_, name)) = order.next(&mut round) {
        asked += 1;
        if *name == "plain" {
            break;
        }
        round.refused();
    }
    assert_eq!(asked, 5, "four in vain, and the plain one all the same");
}

#[test]
fn who_is_skipped_was_not_asked_in_vain() {
    let now = Instant::now();
    let mut order = Order::new(QueuePolicy::default());
    for tenant in 0..6 {
        order.enter(special(tenant), now, tenant).unwrap();
    }
    let mut named = Vec::new();
    let mut round = order.round(lanes(&order), now, 1);
    while let Some((_, tenant)) = order.next(&mut round) {
        named.push(*tenant);
        assert_eq!(round.named(), Some((lanes(&order)[0], true)));
        if *tenant == 4 {
            round.refused();
        } else {
            round.pass_over();
        }
    }
    assert_eq!(named, [0, 1, 2, 3, 4]);
}

#[test]
fn who_is_refused_alone_does_not_stand_for_the_others() {
    let now = Instant::now();
    let mut order = Order::new(QueuePolicy::default());
    for (tenant, name) in [(0, "a1"), (0, "a2"), (1, "b1"), (1, "b2"), (2, "c1")] {
        order.enter(normal(tenant), now, name).unwrap();
    }
    let mut asked = Vec::new();
    let mut round = order.round(lanes(&order), now, 3);
    while let Some((ticket, name)) = order.next(&mut round) {
        asked.push(*name);
        match *name {
            "b1" => drop(order.serve(ticket)),
            _ => round.refused_alone(),
        }
    }
    assert_eq!(asked, ["a1", "a2", "b1", "c1"], "three in vain are enough");
}

#[test]
fn bounds_hold_and_leaving_makes_room() {
    let now = Instant::now();
    let mut order = Order::new(QueuePolicy { max_waiting: 3, max_per_tenant: 2, ..QueuePolicy::default() });
    let (first, _) = order.enter(normal(0), now, ()).unwrap();
    order.enter(normal(0), now, ()).unwrap();
    assert_eq!(order.enter(normal(0), now, ()), Err(Full::Tenant));
    order.enter(arrival(7, 1, Priority::High), now, ()).unwrap();
    assert_eq!(order.enter(normal(2), now, ()), Err(Full::Queue));
    let left = order.leave(first).unwrap();
    assert_eq!((left.priority, left.entered), (Priority::Normal, now));
    assert!(order.leave(first).is_none() && order.serve(first).is_none());
    order.enter(normal(0), now, ()).unwrap();
    assert_eq!(order.len(), 3);
}

#[derive(Debug, Clone)]
enum Op {
    Enter {
        model: u8,
        tenant: u8,
        priority: usize,
        special: bool,
    },
    Leave(usize),
    /// A round over some lanes in which so many are served, those for which the coin says so.
    Round {
        lanes: u8,
        coins: Vec<bool>,
    },
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3u8, 0..4u8, 0..3usize, prop::bool::weighted(0.3))
            .prop_map(|(model, tenant, priority, special)| Op::Enter { model, tenant, priority, special }),
        2 => (0..100usize).prop_map(Op::Leave),
        3 => (1..8u8, vec(any::<bool>(), 0..6)).prop_map(|(lanes, coins)| Op::Round { lanes, coins }),
        2 => (0..9_000u64).prop_map(Op::Wait),
    ]
}

/// What the test knows of a waiter.
#[derive(Debug, Clone)]
struct Known {
    model: u8,
    tenant: u8,
    priority: Priority,
    special: bool,
    entered: Instant,
}

impl Known {
    fn class(&self, now: Instant) -> usize {
        let risen = (now - self.entered).as_millis() / QueuePolicy::AGEING.as_millis();
        (self.priority as usize).saturating_sub(usize::try_from(risen).unwrap())
    }
}

const BOUNDS: QueuePolicy = QueuePolicy { max_waiting: 24, max_per_tenant: 10, ..QueuePolicy::OFF };

struct Walked {
    served: Vec<Ticket>,
    refused: Vec<Ticket>,
}

/// Checks each one that is named against all that are known.
fn walk(
    order: &mut Order<Known>,
    known: &mut HashMap<Ticket, Known>,
    round: &mut Round,
    now: Instant,
    coins: &[bool],
) -> Result<Walked, TestCaseError> {
    let mut coins = coins.iter().copied().chain(std::iter::repeat(false));
    let mut walked = Walked { served: Vec::new(), refused: Vec::new() };
    let mut plain_refused: Vec<u8> = Vec::new();
    while let Some((ticket, what)) = order.next(round) {
        let named = what.clone();
        prop_assert!(known.contains_key(&ticket), "named one that does not wait");
        prop_assert!(named.special || !plain_refused.contains(&named.model), "refused already");
        for (other_ticket, other) in known.iter() {
            let asked = walked.refused.contains(other_ticket);
            let blocked = !other.special && plain_refused.contains(&other.model);
            if other.model != named.model || asked || blocked {
                continue;
            }
            prop_assert!(other.class(now) >= named.class(now), "passed over {other:?} for {named:?}");
            if other.tenant == named.tenant && other.class(now) == named.class(now) {
                prop_assert!(*other_ticket >= ticket, "overtook {other:?} of its own tenant");
            }
        }
        if coins.next() == Some(true) {
            let left = order.serve(ticket).expect("who is named waits");
            prop_assert_eq!(left.priority, named.priority);
            known.remove(&ticket);
            walked.served.push(ticket);
        } else {
            round.refused();
            if !named.special {
                plain_refused.push(named.model);
            }
            walked.refused.push(ticket);
        }
    }
    Ok(walked)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens: nobody is lost or served twice, bounds hold exactly, a better class and an
    /// earlier arrival of the same tenant are never passed over, and a round asks everybody who could want
    /// what is left.
    #[test]
    fn nobody_is_lost_doubled_or_passed_over(ops in vec(op(), 1..120)) {
        let mut now = Instant::now();
        let mut order = Order::new(BOUNDS);
        let mut known: HashMap<Ticket, Known> = HashMap::new();
        for op in ops {
            match op {
                Op::Enter { model, tenant, priority, special } => {
                    let priority = Priority::ALL[priority];
                    let known_waiter = Known { model, tenant, priority, special, entered: now };
                    let same = known.values().filter(|other| other.tenant == tenant).count();
                    let expected = if known.len() >= BOUNDS.max_waiting {
                        Some(Full::Queue)
                    } else {
                        (same >= BOUNDS.max_per_tenant).then_some(Full::Tenant)
                    };
                    let arrival = Arrival { special, ..arrival(model, tenant, priority) };
                    match order.enter(arrival, now, known_waiter.clone()) {
                        Ok((ticket, _)) => {
                            prop_assert_eq!(expected, None);
                            prop_assert!(known.insert(ticket, known_waiter).is_none(), "a ticket twice");
                        }
                        Err(full) => prop_assert_eq!(Some(full), expected),
                    }
                }
                Op::Leave(at) => {
                    let mut tickets: Vec<_> = known.keys().copied().collect();
                    tickets.sort();
                    if let Some(ticket) = tickets.get(at) {
                        known.remove(ticket);
                        prop_assert!(order.leave(*ticket).is_some());
                        prop_assert!(order.leave(*ticket).is_none());
                    }
                }
                Op::Round { lanes, coins } => {
                    let of = |model: u8| lanes & (1 << model) != 0;
                    let ids: Vec<_> =
                        (0..3).filter(|model| of(*model)).filter_map(|model| order.lane(&arrival(model, 0, Priority::Low).model)).collect();
                    let mut round = order.round(ids, now, ANY);
                    let walked = walk(&mut order, &mut known, &mut round, now, &coins)?;
                    // Who is left in these lanes was asked, or wants what somebody asked did not get.
                    for (ticket, left) in known.iter().filter(|(_, left)| of(left.model)) {
                        let refused = |ticket: &Ticket| walked.refused.contains(ticket);
                        let like = |other: &Ticket| known.get(other).is_some_and(|other| !other.special && other.model == left.model);
                        let asked = refused(ticket) || (!left.special && walked.refused.iter().any(like));
                        prop_assert!(asked, "{left:?} was not asked");
                    }
                    prop_assert!(walked.served.len() <= coins.len());
                }
                Op::Wait(millis) => now += Duration::from_millis(millis),
            }
            prop_assert_eq!(order.len(), known.len());
            for priority in Priority::ALL {
                let asked = known.values().filter(|known| known.priority == priority).count();
                prop_assert_eq!(order.asked(priority), asked);
            }
            let in_lanes: usize = lanes(&order).into_iter().map(|lane| order.waiting(lane).0).sum();
            prop_assert_eq!(in_lanes, known.len());
        }
        let all = serve_all_known(&mut order, now);
        prop_assert_eq!(all, known.len());
        prop_assert!(lanes(&order).is_empty());
    }

    /// Of tenants that always have somebody waiting, none is ahead of another by more than one request,
    /// whoever else comes, leaves and is served.
    #[test]
    fn fair_within_one_request(
        class in 0..3usize,
        steps in vec((0..4u8, 0..4u8, 3..6u8, any::<bool>()), 1..200),
    ) {
        let now = Instant::now();
        let mut order = Order::new(QueuePolicy::default());
        let enter = |order: &mut Order<u8>, tenant| {
            order.enter(arrival(0, tenant, Priority::ALL[class]), now, tenant).unwrap().0
        };
        let mut served = [0i32; 3];
        for tenant in 0..3 {
            enter(&mut order, tenant);
        }
        let mut guests = Vec::new();
        for (more, serves, guest, leaves) in steps {
            for _ in 0..more {
                enter(&mut order, more % 3);
            }
            guests.push(enter(&mut order, guest));
            if leaves {
                order.leave(guests.swap_remove(usize::from(more) % guests.len()));
            }
            for _ in 0..serves {
                let Some(tenant) = serve(&mut order, now) else { break };
                if let Some(count) = served.get_mut(usize::from(tenant)) {
                    *count += 1;
                    enter(&mut order, tenant);
                }
                let spread = served.iter().max().unwrap() - served.iter().min().unwrap();
                prop_assert!(spread <= 1, "{served:?}");
            }
        }
    }

    /// However many better ones come, and be it from its own tenant: a waiter of the worst class is served
    /// once it has risen and each other tenant, in each other lane, has had its turn.
    #[test]
    fn no_class_starves(
        floods in vec(vec((0..3u8, 0..4u8), 1..4), 60..61),
        tenant in 0..4u8,
        model in 0..3u8,
    ) {
        const TURNS: u64 = 3 * 4 + 1;
        let start = Instant::now();
        let mut order = Order::new(QueuePolicy { max_waiting: 10_000, max_per_tenant: 10_000, ..QueuePolicy::default() });
        order.enter(arrival(model, tenant, Priority::Low), start, true).unwrap();
        let limit = start + 2 * QueuePolicy::AGEING + Duration::from_secs(TURNS);
        let mut now = start;
        let mut done = false;
        for flood in floods {
            for (model, tenant) in flood {
                order.enter(arrival(model, tenant, Priority::High), now, false).unwrap();
            }
            done |= serve(&mut order, now) == Some(true);
            now += Duration::from_secs(1);
            prop_assert!(done || now <= limit, "still waits after {:?}", now - start);
        }
        prop_assert!(done);
    }
}

fn serve_all_known(order: &mut Order<Known>, now: Instant) -> usize {
    let mut round = order.round(lanes(order), now, ANY);
    let mut served = 0;
    while let Some((ticket, _)) = order.next(&mut round) {
        served += usize::from(order.serve(ticket).is_some());
    }
    served
}
