//! `reprovisiond resolve`: a person decides what no evidence could.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::order::{self, OrderArgs};
use super::{Failure, Global};
use crate::domain::operator::{Act, Resolution};

/// Decide on requests in doubt
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond resolve --as successful --request 17 --by alice --reason 'Intune shows it at 10:04'
  reprovisiond resolve --as retry --device 30d0e128-de93-41dc-89ec-33d84bb662a0 --by alice --reason 'not wiped'
  reprovisiond resolve --as failed --tenant contoso --by alice --reason 'owners asked to stop'

The call of such a request may have been carried out. Find out first, at the device or in Intune:
  successful  it was: the request ends
  retry       it was not: the request is sent again, which wipes the Cloud PC
  failed      whatever it was, leave it: the request ends

--request and --device take requests that are `unknown` or `held`; --tenant and --all take those that
are `held`. The decision is recorded with your name.

Exit code 1: something that was asked for is not in doubt. The others are resolved.")]
pub(crate) struct ResolveArgs {
    /// How it ends
    #[arg(long = "as", value_name = "DECISION", value_parser = PossibleValuesParser::new(Resolution::ALL.iter().map(|decision| decision.as_str())).try_map(|word| word.parse::<Resolution>()))]
    decision: Resolution,
    #[command(flatten)]
    order: OrderArgs,
}

pub(crate) async fn run(global: &Global, args: &ResolveArgs) -> Result<(), Failure> {
    order::carry_out(global, &args.order, Act::Resolve(args.decision)).await
}
