//! The waiters for one model: in each class a ring of tenants, and each tenant's waiters as they came.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

use super::Ticket;
use crate::names::ModelId;
use crate::queue::{Priority, Tenant};

/// Whose turn it is: smaller is sooner. Given out once each, over the whole order.
pub(super) type Turn = u64;

/// `None` is the tenant of all that have none.
pub(super) type Account = Option<Tenant>;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) model: Option<ModelId>,
    classes: [Class; 3],
    waiting: usize,
    plain: usize,
}

impl Lane {
    pub(super) fn new(model: Option<ModelId>, turn: Turn) -> Self {
        let classes = std::array::from_fn(|_| Class { turn, ..Class::default() });
        Self { model, classes, waiting: 0, plain: 0 }
    }

    pub(super) fn class(&self, class: Priority) -> &Class {
        &self.classes[class.place()]
    }

    pub(super) fn class_mut(&mut self, class: Priority) -> &mut Class {
        &mut self.classes[class.place()]
    }

    pub(super) fn count_in(&mut self, special: bool) {
        self.waiting += 1;
        self.plain += usize::from(!special);
    }

    pub(super) fn count_out(&mut self, special: bool) {
        self.waiting -= 1;
        self.plain -= usize::from(!special);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn plain(&self) -> usize {
        self.plain
    }
}

/// A place in a class: what is before it, or at it, has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) turn: Turn,
    pub(super) ticket: Ticket,
}

/// Whom to look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub(super) plain: bool,
    pub(super) special: bool,
}

#[derive(Debug, Default)]
pub(super) struct Class {
    /// The lane's own turn among lanes, in this class.
    pub(super) turn: Turn,
    lines: BTreeMap<Turn, Line>,
    turns: HashMap<Account, Turn>,
    /// Turns of tenants that have plain waiters, and of those that have special ones: to pass over the rest
    /// without looking at each.
    plain: BTreeSet<Turn>,
    special: BTreeSet<Turn>,
}

/// One tenant's waiters in one class. Tickets grow, so their order is that of arrival.
#[derive(Debug, Default)]
struct Line {
    plain: BTreeSet<Ticket>,
    special: BTreeSet<Ticket>,
}

impl Class {
    /// Adds a waiter by its time of arrival. A tenant that was not there gets `turn`, which must be the
    /// last.
    pub(super) fn add(&mut self, account: &Account, ticket: Ticket, special: bool, turn: Turn) {
        let turn = *self.turns.entry(account.clone()).or_insert(turn);
        let line = self.lines.entry(turn).or_default();
        if special {
            line.special.insert(ticket);
            self.special.insert(turn);
        } else {
            line.plain.insert(ticket);
            self.plain.insert(turn);
        }
    }

    pub(super) fn remove(&mut self, account: &Account, ticket: Ticket, special: bool) {
        let Some(&turn) = self.turns.get(account) else { return };
        let Some(line) = self.lines.get_mut(&turn) else { return };
        let (tickets, turns) =
            if special { (&mut line.special, &mut self.special) } else { (&mut line.plain, &mut self.plain) };
        tickets.remove(&ticket);
        if tickets.is_empty() {
            turns.remove(&turn);
        }
        if line.plain.is_empty() && line.special.is_empty() {
            self.lines.remove(&turn);
            self.turns.remove(account);
        }
    }

    /// Puts a tenant that had its turn behind all others.
    pub(super) fn send_back(&mut self, account: &Account, last: Turn) {
        let Some(turn) = self.turns.get_mut(account) else { return };
        let before = std::mem::replace(turn, last);
        if let Some(line) = self.lines.remove(&before) {
            self.lines.insert(last, line);
        }
        for turns in [&mut self.plain, &mut self.special] {
            if turns.remove(&before) {
                turns.insert(last);
            }
        }
    }

    /// The first waiter after `from`, and whether it is special.
    pub(super) fn next(&self, from: Place, open: Open) -> Option<(Place, bool)> {
        let first = |open: bool, turns: &BTreeSet<Turn>, at| {
            if open { turns.range(at..).next().copied() } else { None }
        };
        let mut at = from.turn;
        loop {
            let turns = [first(open.plain, &self.plain, at), first(open.special, &self.special, at)];
            let turn = turns.into_iter().flatten().min()?;
            let line = self.lines.get(&turn)?;
            let seen = if turn == from.turn { from.ticket } else { Ticket::default() };
            let after = |open: bool, tickets: &BTreeSet<Ticket>| {
                if open { tickets.range((Excluded(seen), Unbounded)).next().copied() } else { None }
            };
            let plain = after(open.plain, &line.plain).map(|ticket| (ticket, false));
            let special = after(open.special, &line.special).map(|ticket| (ticket, true));
            if let Some((ticket, special)) = plain.into_iter().chain(special).min() {
                return Some((Place { turn, ticket }, special));
            }
            at = turn + 1;
        }
    }
}
