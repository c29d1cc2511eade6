//! A call with more users than one request may carry: several requests, and one outcome.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::RunningCall;
use crate::data::error::Error;
use crate::data::outcome::{Outcome, UserIds};

/// Maximum number of concurrent requests of one call. It is small, because if the platform refuses one request, it
/// would refuse the following ones too.
const PARTS_AT_ONCE: usize = 10;

/// Sends the parts within the quota, a few at a time. After one fails, those that have not begun are not sent.
pub(super) async fn send_all(
    call: &RunningCall<'_>,
    user_ids: Vec<String>,
    most_users: usize,
) -> Result<Outcome, Error> {
    let count = user_ids.len().div_ceil(most_users);
    if let Some(lane) = &call.lane
        && let Err(reason) = lane.check(count, call.time.limit.for_a_turn())
    {
        return Err(Error::from(reason).with_users(UserIds::not_attempted(user_ids)));
    }
    let mut user_ids = user_ids.into_iter();
    let mut running = FuturesUnordered::new();
    let mut ended: Vec<Option<Result<Outcome, Error>>> = (0..count).map(|_| None).collect();
    let mut begun = 0;
    let mut failed = None;
    loop {
        while failed.is_none() && running.len() < PARTS_AT_ONCE && begun < count {
            let part: Vec<_> = user_ids.by_ref().take(most_users).collect();
            let index = begun;
            running.push(async move { (index, call.send_part(part).await) });
            begun += 1;
        }
        let Some((index, result)) = running.next().await else {
            break;
        };
        if result.is_err() && failed.is_none() {
            failed = Some(index);
        }
        ended[index] = Some(result);
    }
    sum_up(ended, failed, user_ids.collect())
}

/// Merges the results of all parts, in the order of the user ids. If a part failed, returns the first failure,
/// completed with the users and outcomes of the other parts.
fn sum_up(
    ended: Vec<Option<Result<Outcome, Error>>>,
    failed: Option<usize>,
    unsent: Vec<String>,
) -> Result<Outcome, Error> {
    let failure = failed.and_then(|index| match &ended[index] {
        Some(Err(error)) => Some(error.clone()),
        _ => None,
    });
    let mut sum = Outcome::default();
    let mut users = UserIds::default();
    for result in ended.into_iter().flatten() {
        match result {
            Ok(outcome) => {
                users.append(outcome.users.clone());
                sum.append(outcome);
            }
            Err(error) => users.append(error.users().clone()),
        }
    }
    let Some(error) = failure else { return Ok(sum) };
    users.append(UserIds::not_attempted(unsent));
    Err(error.with_users(users).with_outcome(sum))
}
