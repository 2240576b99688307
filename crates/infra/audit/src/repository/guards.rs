//! Guards outside of the writer: in a transaction of whoever changes more than a unit can say.

use crate::unit::{Cell, Guard};
use systemprompt_database::{WriteTx, on_tx};

/// How many rows a guard's statement touched.
pub(crate) async fn touched(tx: &mut WriteTx, guard: &Guard) -> sqlx::Result<u64> {
    on_tx!(*tx, conn => {
        let mut query = sqlx::query(guard.sql);
        for cell in &guard.cells {
            query = match cell {
                Cell::Null => query.bind(None::<String>),
                Cell::Int(value) => query.bind(*value),
                Cell::Text(text) | Cell::Json(text) => query.bind(&**text),
                Cell::Blob(bytes) => query.bind(&**bytes),
            };
        }
        query.execute(&mut *conn).await.map(|done| done.rows_affected())
    })
}
