//! A token provider written in JavaScript.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use feishu_feed_card::{BoxError, ProvidedToken, Providing, TokenProvider, TokenReason};

use crate::environment::Queue;
use crate::events::current_context;

/// Calls the facade's token provider, in the environment in which the client was created.
pub(crate) struct FacadeProvider {
    pub(crate) queue: Arc<Queue>,
    pub(crate) client: i64,
}

impl TokenProvider for FacadeProvider {
    fn tenant_access_token(&self, reason: TokenReason<'_>) -> Providing {
        let refused = reason.refused_token().map(str::to_owned);
        let wanted_by = current_context().unwrap_or(self.client);
        let (provider_call, result) = self.queue.call_provider(wanted_by, refused);
        Box::pin(async move {
            let result = result
                .await
                .map_err(|_| BoxError::from("its thread ended before it returned a token"))?;
            let (token, expires_in_ms) = result.map_err(|why| ProviderFailed { provider_call, why })?;
            let token = ProvidedToken::new(token);
            Ok(match expires_in_ms {
                // The facade accepts only positive, finite numbers.
                Some(ms) => {
                    token.expires_in(Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::MAX))
                }
                None => token,
            })
        })
    }
}

/// A token provider threw an exception, or returned an invalid token.
#[derive(Debug)]
pub(crate) struct ProviderFailed {
    pub(crate) provider_call: i64,
    why: String,
}

impl fmt::Display for ProviderFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for ProviderFailed {}
