//! `reprovisiond migrate`
