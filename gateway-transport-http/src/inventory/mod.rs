//! Where it is known which runners there are. One file each.

mod fixed;
mod handle;

pub use fixed::FixedList;
pub(crate) use handle::Handed;
pub use handle::HttpRunnersHandle;
