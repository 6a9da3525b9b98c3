//! A model is closed for an unload only while nobody uses it, and nobody begins to use a closed one, in every
//! interleaving that the memory model allows. Includes the file itself, on loom's atomics.

#![allow(dead_code)]

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
}

#[path = "../src/runner/latch.rs"]
mod latch;

use latch::Latch;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

struct Model {
    latch: Latch,
    /// Requests on the runner. Relaxed, so that only the latch orders anything.
    requests: AtomicU32,
    is_out: AtomicBool,
}

fn request(model: &Model) -> bool {
    let begun = model.latch.begin();
    if begun {
        assert!(!model.is_out.load(Ordering::Relaxed), "sent to a model that is not there");
        model.requests.fetch_add(1, Ordering::Relaxed);
        model.requests.fetch_sub(1, Ordering::Relaxed);
        model.latch.end();
    }
    begun
}

fn unload(model: &Model) -> bool {
    let closed = model.latch.close();
    if closed {
        assert_eq!(model.requests.load(Ordering::Relaxed), 0, "unloaded while it was used");
        model.is_out.store(true, Ordering::Relaxed);
    }
    closed
}

fn load(model: &Model) {
    model.is_out.store(false, Ordering::Relaxed);
    model.latch.open();
}

fn model() -> Arc<Model> {
    Arc::new(Model { latch: Latch::new(), requests: AtomicU32::new(0), is_out: AtomicBool::new(false) })
}

#[test]
fn two_requests_and_an_unload() {
    loom::model(|| {
        let model = model();
        let requests: Vec<_> = (0..2)
            .map(|_| {
                let model = model.clone();
                thread::spawn(move || request(&model))
            })
            .collect();
        let unloaded = unload(&model);
        let served: Vec<bool> = requests.into_iter().map(|request| request.join().unwrap()).collect();
        assert!(unloaded || served == [true, true], "refused although nothing was unloaded");
        assert_eq!(model.latch.count(), 0);
        assert_eq!(request(&model), !unloaded);
    });
}

#[test]
fn a_request_an_unload_and_a_load() {
    loom::model(|| {
        let model = model();
        let other = model.clone();
        let request = thread::spawn(move || (request(&other), request(&other)));
        if unload(&model) {
            load(&model);
        }
        request.join().unwrap();
        assert_eq!(model.latch.count(), 0);
        assert!(unload(&model), "nobody is there any more");
    });
}

/// Two may want to evict the same model.
#[test]
fn two_unloads_and_a_request() {
    loom::model(|| {
        let model = model();
        let (one, other) = (model.clone(), model.clone());
        let request = thread::spawn(move || request(&one));
        let second = thread::spawn(move || other.latch.close());
        let first = model.latch.close();
        let second = second.join().unwrap();
        request.join().unwrap();
        assert!(!(first && second), "one of them closed it");
    });
}
