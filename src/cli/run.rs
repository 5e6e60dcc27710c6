//! `reprovisiond run`
