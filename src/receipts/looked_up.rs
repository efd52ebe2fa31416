//! What a provider said when it was asked what became of messages: stored as if it had come by itself.

use super::Books;
use super::located::Located;
use super::places::Places;
use super::refusal::Refusal;
use super::told::keep;
use crate::api::BroadcastChannelSpec;
use crate::domain::ids::ObjectKey;
use crate::domain::receipt::Receipt;

/// Stores receipts of messages of a channel, and what else follows from them. Those of messages that are not known any more say
/// nothing.
///
/// # Errors
/// When they could not be stored.
pub async fn store_news(
    books: &Books,
    (channel, spec): (&ObjectKey, &BroadcastChannelSpec),
    news: Vec<Receipt>,
) -> Result<(), Refusal> {
    let mut located = Located::of(news);
    located.look(&Places::of(&books.observed, channel), None);
    keep(books, (channel, spec), (located.found, &located.notable), (&[], &[])).await
}
