#![doc = include_str!("../README.md")]

mod agree;
mod device;
mod error;
mod flight;
mod host;
mod pieces;
mod ranks;
mod reduction;
mod table;

pub use agree::Agreed;
pub use device::{DeviceClip, DeviceStep};
pub use error::Error;
pub use gradclip;
pub use host::{HostClip, HostStep};
pub use mpi;
pub use pieces::{Piece, shard_ranges};
pub use ranks::Ranks;
