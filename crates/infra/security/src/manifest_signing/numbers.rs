//! Looks at the numbers of a value as it is serialised. JSON writers turn a NaN inside a list into `null` and a large integer
//! into the nearest double, both in silence; a signature must not cover what the signer did not say.

use crate::error::ManifestSigningError as Error;
use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Largest integer that every JSON reader keeps exactly.
const MAX_INTEGER: u128 = 1 << 53;

/// A serializer that writes nothing and refuses a number that JSON cannot carry.
#[derive(Clone, Copy)]
pub(super) struct Numbers;

fn integer(size: u128) -> Result<(), Error> {
    if size <= MAX_INTEGER { Ok(()) } else { Err(Error::NumberOutOfRange) }
}

fn float(value: f64) -> Result<(), Error> {
    if value.is_finite() { Ok(()) } else { Err(Error::NumberOutOfRange) }
}

macro_rules! numbers {
    ($($method:ident($type:ty) = $value:ident => $check:expr;)*) => {
        $(fn $method(self, $value: $type) -> Result<(), Error> { $check })*
    };
}

macro_rules! nothing {
    ($($method:ident($($type:ty),*);)*) => {
        $(fn $method(self, $(_: $type),*) -> Result<(), Error> { Ok(()) })*
    };
}

impl Serializer for Numbers {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    numbers! {
        serialize_i8(i8) = n => integer(n.unsigned_abs().into());
        serialize_i16(i16) = n => integer(n.unsigned_abs().into());
        serialize_i32(i32) = n => integer(n.unsigned_abs().into());
        serialize_i64(i64) = n => integer(n.unsigned_abs().into());
        serialize_i128(i128) = n => integer(n.unsigned_abs());
        serialize_u8(u8) = n => integer(n.into());
        serialize_u16(u16) = n => integer(n.into());
        serialize_u32(u32) = n => integer(n.into());
        serialize_u64(u64) = n => integer(n.into());
        serialize_u128(u128) = n => integer(n);
        serialize_f32(f32) = n => float(n.into());
        serialize_f64(f64) = n => float(n);
    }

    nothing! {
        serialize_bool(bool);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Error> {
        Ok(self)
    }
}

macro_rules! parts {
    ($($trait:ident :: $method:ident($($name:ty)?);)*) => {$(
        impl $trait for Numbers {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Result<(), Error> {
                value.serialize(*self)
            }

            fn end(self) -> Result<(), Error> {
                Ok(())
            }
        }
    )*};
}

parts! {
    SerializeSeq::serialize_element();
    SerializeTuple::serialize_element();
    SerializeTupleStruct::serialize_field();
    SerializeTupleVariant::serialize_field();
    SerializeStruct::serialize_field(&'static str);
    SerializeStructVariant::serialize_field(&'static str);
}

/// Keys are written as text, so their size does not matter.
impl SerializeMap for Numbers {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(*self)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}
