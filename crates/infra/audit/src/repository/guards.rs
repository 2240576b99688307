//! Guards as queries: the writer's on PostgreSQL, and those in a transaction of whoever changes more than a unit can say.

use crate::unit::{Cell, Guard};
use sqlx::query::Query;
use sqlx::{Database, Encode, Type};
use systemprompt_database::{WriteTx, on_tx};

/// The statement of a guard with its cells bound.
pub(super) fn bound<'q, DB: Database>(guard: &'q Guard) -> Query<'q, DB, DB::Arguments>
where
    Option<String>: Encode<'q, DB> + Type<DB>,
    i64: Encode<'q, DB> + Type<DB>,
    &'q str: Encode<'q, DB> + Type<DB>,
    &'q [u8]: Encode<'q, DB> + Type<DB>,
{
    guard.cells.iter().fold(sqlx::query(guard.sql), |query, cell| match cell {
        Cell::Null => query.bind(None::<String>),
        Cell::Int(value) => query.bind(*value),
        Cell::Text(text) | Cell::Json(text) => query.bind(&**text),
        Cell::Blob(bytes) => query.bind(&**bytes),
    })
}

/// How many rows a guard's statement touched.
pub(crate) async fn touched(tx: &mut WriteTx, guard: &Guard) -> sqlx::Result<u64> {
    on_tx!(*tx, conn => bound(guard).execute(&mut *conn).await.map(|done| done.rows_affected()))
}
