//! Why an object was evicted.

reasons! {
    /// The limit for which an object was evicted.
    EvictionReason {}
    Size: "size", "cache.size was nearly reached";
    Objects: "objects", "cache.objects was nearly reached";
    Disk: "disk", "the disk had less room than cache.free";
    Bucket: "bucket", "the part of the index for a new key was full";
}
