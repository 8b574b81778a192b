"""What every source of facts looks like, and what separates good rows from bad ones. Pure: frames in, frames out."""
