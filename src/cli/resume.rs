//! `reprovisiond resume`: ends a pause.

use clap::Args;

use super::order::{self, OrderArgs};
use super::{Failure, Global};
use crate::domain::operator::Act;

/// End a pause
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond resume --tenant contoso --by alice --reason 'freeze is over'
  reprovisiond resume --all --by alice --reason 'Intune works again'
  reprovisiond resume --device 30d0e128-de93-41dc-89ec-33d84bb662a0 --by alice --reason 'is back'
  reprovisiond resume --request 17 18 --by alice --reason 'may go'

It ends the pause of just what is named: a device or a request that is paused by itself stays so when
its tenant is resumed, and the other way round. What is still held back is shown.

Exit code 1: a tenant or request is not known, or the request has ended. The others are resumed.")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    order: OrderArgs,
}

pub(crate) async fn run(global: &Global, args: &ResumeArgs) -> Result<(), Failure> {
    order::carry_out(global, &args.order, Act::Resume).await
}
