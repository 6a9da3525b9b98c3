//! Beside the file that they test, because `tests/unload_interleavings.rs` includes that under loom.

use std::sync::atomic::AtomicBool;

use super::latch::Latch;
use super::sync::{AtomicU32, Ordering};

#[test]
fn closes_only_while_nobody_uses_it() {
    let latch = Latch::new();
    assert!(latch.begin());
    assert!(!latch.close());
    latch.end();
    assert!(latch.close());
    assert!(!latch.close(), "it is closed already");
    assert!(!latch.begin());
    assert_eq!(latch.count(), 0);
    latch.open();
    assert!(latch.begin());
    assert_eq!(latch.count(), 1);
}

/// Many threads begin and end while one closes and opens: nobody is ever inside while it is closed.
#[test]
fn nobody_is_inside_while_it_is_closed() {
    let latch = Latch::new();
    let inside = AtomicU32::new(0);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if latch.begin() {
                        inside.fetch_add(1, Ordering::SeqCst);
                        std::hint::spin_loop();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        latch.end();
                    }
                    std::thread::yield_now();
                }
            });
        }
        let mut closed = 0;
        for _ in 0..2_000_000 {
            if latch.close() {
                closed += 1;
                for _ in 0..20 {
                    assert_eq!(inside.load(Ordering::SeqCst), 0);
                }
                latch.open();
            }
            if closed >= 2_000 {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        assert!(closed > 0, "it was never free");
    });
    assert_eq!(latch.count(), 0);
}
