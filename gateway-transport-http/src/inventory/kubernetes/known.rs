//! What the cluster has told so far, and what is news in what it tells.

use std::collections::{HashMap, HashSet, VecDeque};

use gateway_core::InventoryChange;
use kube::runtime::watcher::Event;

use super::Kubernetes;
use crate::source::HttpRunner;

/// The runners of one object, which has this name.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) runners: Vec<HttpRunner>,
}

/// Objects that have runners. A pod has one or none; a slice of endpoints has many, and one runner may be in
/// two slices for a moment.
#[derive(Debug, Default)]
pub(super) struct Known {
    objects: HashMap<String, Vec<HttpRunner>>,
    /// What a list has told until it is whole.
    coming: HashMap<String, Vec<HttpRunner>>,
    news: VecDeque<InventoryChange<HttpRunner>>,
}

impl Known {
    pub(super) fn len(&self) -> usize {
        self.objects.values().map(Vec::len).sum()
    }

    pub(super) fn next(&mut self) -> Option<InventoryChange<HttpRunner>> {
        self.news.pop_front()
    }

    pub(super) fn hear(&mut self, event: Event<Seen>) {
        match event {
            Event::Init => self.coming.clear(),
            Event::InitApply(seen) => put(&mut self.coming, seen),
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.coming);
                let mut ids = HashSet::new();
                let all = self.objects.values().flatten();
                let all = all.filter(|runner| ids.insert(runner.runner_id().clone())).cloned().collect();
                self.news.push_back(InventoryChange::All(all));
            }
            Event::Apply(seen) => self.change(seen),
            Event::Delete(seen) => self.change(Seen { runners: Vec::new(), ..seen }),
        }
    }

    fn change(&mut self, seen: Seen) {
        let before = self.objects.remove(&seen.name).unwrap_or_default();
        let name = seen.name.clone();
        put(&mut self.objects, seen);
        let now = self.objects.get(&name).map(Vec::as_slice).unwrap_or_default();
        for runner in now.iter().filter(|runner| !before.contains(runner)) {
            self.news.push_back(InventoryChange::Found(runner.clone()));
        }
        for runner in &before {
            let id = runner.runner_id();
            if self.objects.values().flatten().all(|other| other.runner_id() != id) {
                self.news.push_back(InventoryChange::Gone(id.clone()));
            }
        }
    }
}

fn put(objects: &mut HashMap<String, Vec<HttpRunner>>, seen: Seen) {
    // What has no runner is not worth a place.
    if seen.runners.is_empty() {
        objects.remove(&seen.name);
    } else if objects.len() < Kubernetes::MAX_OBJECTS || objects.contains_key(&seen.name) {
        objects.insert(seen.name, seen.runners);
    } else {
        let most = Kubernetes::MAX_OBJECTS;
        tracing::error!(object = seen.name, most, "left out: there are more in the cluster than may be");
    }
}
