//! `reprovisiond cancel`: ends requests that were not sent.

use clap::Args;

use super::order::{self, OrderArgs};
use super::{Failure, Global};
use crate::domain::operator::Act;

/// Withdraw requests that were not sent
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond cancel --request 17 18 --by alice --reason 'ticket 4711 was a mistake'
  reprovisiond cancel --device 30d0e128-de93-41dc-89ec-33d84bb662a0 --by alice --reason 'returned to stock'
  reprovisiond cancel --tenant contoso --by alice --reason 'wrong list'

What is queued ends `cancelled`, for good; asking again takes a new request. What may have been sent
cannot be cancelled: each such request is named with its call, and with what to do about it.

Exit code 1: something that was asked for could not be cancelled. What could be is cancelled.")]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    order: OrderArgs,
}

pub(crate) async fn run(global: &Global, args: &CancelArgs) -> Result<(), Failure> {
    order::carry_out(global, &args.order, Act::Cancel).await
}
