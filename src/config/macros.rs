//! One macro that makes a section of the config: the type, its defaults, and its part of the reference, from one definition.

/// Defines a config section. Each field has a doc comment, a type and a default; the doc comments become the reference's.
macro_rules! section {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $field_doc:literal])+ $field:ident : $type:ty = $default:expr;)* }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[doc = $field_doc])+ pub $field: $type,)*
        }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
        impl $crate::config::Section for $name {
            fn fields() -> Vec<$crate::config::FieldDoc> {
                let this = Self::default();
                vec![$($crate::config::FieldDoc::new(stringify!($field), &[$($field_doc),+], &this.$field),)*]
            }
        }
    };
}
pub(crate) use section;
