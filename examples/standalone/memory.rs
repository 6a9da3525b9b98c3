//! Whose memory it is. The allocator of glibc keeps what many streams took, once a few that are still open stand in
//! between; jemalloc gives back every page that is free.
//!
//! How it does so is in `.cargo/config.toml`, which cargo reads when it is called within this repository (else jemalloc goes by
//! its own settings), and can be changed for one run with `_RJEM_MALLOC_CONF`:
//!
//! - `dirty_decay_ms`, `background_thread`: pages that have become free are given back after a second, also while nothing
//!   happens. With the 10 s that are jemalloc's own setting, 1,000 streams that began together stood at 51 KiB each after
//!   six seconds instead of 37, because what they had needed for their beginning was still there.
//! - `tcache_nslots_small_min`, `tcache_gc_incr_bytes`: a thread keeps up to 200 blocks of each size at hand, and looks
//!   only once per 8 MiB whether they are too many. Of the blocks of 8 KiB that hyper reads into it would be 20, fewer
//!   than one turn of 64 connections takes and gives back: then each comes and goes by way of the arena. It is some 4,000 of the
//!   instructions of a small request.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
