//! `reprovisiond pause`: nothing more is sent from now on.

use clap::Args;

use super::order::{self, OrderArgs};
use super::{Failure, Global};
use crate::domain::operator::Act;

/// Hold requests back until they are resumed
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond pause --tenant contoso --by alice --reason 'change freeze'
  reprovisiond pause --all --by alice --reason 'Intune outage'
  reprovisiond pause --device 30d0e128-de93-41dc-89ec-33d84bb662a0 --by alice --reason 'VIP, travels today'
  reprovisiond pause --request 17 18 --by alice --reason 'asked to wait'

It holds from the moment this command ends, for every worker: no further call is made for what is
paused. Calls that were under way before are not affected; their number is shown. A pause of a
device holds for its future requests too. What is paused can still expire.

Exit code 1: a tenant or request is not known, or the request has ended. The others are paused.")]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    order: OrderArgs,
}

pub(crate) async fn run(global: &Global, args: &PauseArgs) -> Result<(), Failure> {
    order::carry_out(global, &args.order, Act::Pause).await
}
