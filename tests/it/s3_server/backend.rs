//! What the S3 server does with objects, on the `s3s` crate.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, ETag,
    ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp, UploadPartInput,
    UploadPartOutput,
};
use s3s::{Body, S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use sha2::{Digest, Sha256};

use super::{BUCKET, State};

pub struct Backend(pub Arc<State>);

/// Writes out what `async_trait` would make of the trait's functions.
macro_rules! operations {
    ($($name:ident: $input:ident => $output:ident,)*) => {
        impl S3 for Backend {
            $(fn $name<'life0, 'async_trait>(
                &'life0 self,
                request: S3Request<$input>,
            ) -> Pin<Box<dyn Future<Output = S3Result<S3Response<$output>>> + Send + 'async_trait>>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                let state = self.0.clone();
                Box::pin(async move { state.$name(request).await.map(S3Response::new) })
            })*
        }
    };
}

operations! {
    get_object: GetObjectInput => GetObjectOutput,
    put_object: PutObjectInput => PutObjectOutput,
    delete_object: DeleteObjectInput => DeleteObjectOutput,
    list_objects_v2: ListObjectsV2Input => ListObjectsV2Output,
    head_object: HeadObjectInput => HeadObjectOutput,
    create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput,
    upload_part: UploadPartInput => UploadPartOutput,
    complete_multipart_upload: CompleteMultipartUploadInput => CompleteMultipartUploadOutput,
    abort_multipart_upload: AbortMultipartUploadInput => AbortMultipartUploadOutput,
}

/// Not as long as an MD5, for which some programs would take it.
fn tag(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)[..20])
}

/// When everything was changed last.
fn modified() -> Option<Timestamp> {
    Some(Timestamp::from(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)))
}

fn bucket_exists(bucket: &str) -> S3Result<()> {
    if bucket == BUCKET { Ok(()) } else { Err(s3_error!(NoSuchBucket, "The specified bucket does not exist")) }
}

async fn read(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    match body {
        None => Ok(Bytes::new()),
        Some(body) => {
            Ok(Body::from(body).collect().await.map_err(|error| s3_error!(InternalError, "{error}"))?.to_bytes())
        }
    }
}

impl State {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<GetObjectOutput> {
        let input = request.input;
        bucket_exists(&input.bucket)?;
        let bytes = self.objects.lock().get(&input.key).cloned().ok_or_else(|| s3_error!(NoSuchKey))?;
        let tag = tag(&bytes);
        if let Some(ETagCondition::ETag(known)) = &input.if_none_match
            && known.value() == tag
        {
            return Err(s3_error!(NotModified));
        }
        let mut content_range = None;
        let body = match input.range {
            None => bytes,
            Some(range) => {
                let part = range.check(bytes.len() as u64)?;
                content_range = Some(format!("bytes {}-{}/{}", part.start, part.end - 1, bytes.len()));
                bytes.slice(part.start as usize..part.end as usize)
            }
        };
        Ok(GetObjectOutput {
            content_length: Some(body.len() as i64),
            content_range,
            e_tag: Some(ETag::Strong(tag)),
            last_modified: modified(),
            body: Some(StreamingBlob::from(Body::from(body))),
            ..GetObjectOutput::default()
        })
    }

    fn check(&self, request: &S3Request<PutObjectInput>, present: Option<&Bytes>) -> Result<(), S3Error> {
        if self.ignore_conditions.load(Ordering::SeqCst) {
            return Ok(());
        }
        let failed = || s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold");
        if request.input.if_none_match.is_some() && present.is_some() {
            return Err(failed());
        }
        let Some(ETagCondition::ETag(expected)) = &request.input.if_match else { return Ok(()) };
        let tag = tag(present.ok_or_else(|| s3_error!(NoSuchKey))?);
        let holds = match self.compare_unquoted.load(Ordering::SeqCst) {
            true => request.headers.get("if-match").is_some_and(|raw| raw.as_bytes() == tag.as_bytes()),
            false => expected.value() == tag,
        };
        if holds { Ok(()) } else { Err(failed()) }
    }

    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<PutObjectOutput> {
        bucket_exists(&request.input.bucket)?;
        let bytes = read(request.input.body.take()).await?;
        if self.check_without_lock.load(Ordering::SeqCst) {
            self.check(&request, self.objects.lock().get(&request.input.key))?;
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.objects.lock().insert(request.input.key.clone(), bytes.clone());
        } else {
            let mut objects = self.objects.lock();
            self.check(&request, objects.get(&request.input.key))?;
            objects.insert(request.input.key.clone(), bytes.clone());
        }
        Ok(PutObjectOutput { e_tag: Some(ETag::Strong(tag(&bytes))), ..PutObjectOutput::default() })
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<HeadObjectOutput> {
        let input = request.input;
        bucket_exists(&input.bucket)?;
        let bytes = self.objects.lock().get(&input.key).cloned().ok_or_else(|| s3_error!(NoSuchKey))?;
        Ok(HeadObjectOutput {
            content_length: Some(bytes.len() as i64),
            e_tag: Some(ETag::Strong(tag(&bytes))),
            last_modified: modified(),
            ..HeadObjectOutput::default()
        })
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<DeleteObjectOutput> {
        bucket_exists(&request.input.bucket)?;
        self.objects.lock().remove(&request.input.key);
        Ok(DeleteObjectOutput::default())
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> S3Result<ListObjectsV2Output> {
        let input = request.input;
        bucket_exists(&input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.unwrap_or_default();
        let page_len = self.page_len.load(Ordering::SeqCst);
        let objects = self.objects.lock();
        let mut found = objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let mut contents: Vec<Object> = found
            .by_ref()
            .take(page_len)
            .map(|(key, bytes)| Object {
                key: Some(key.clone()),
                size: Some(bytes.len() as i64),
                e_tag: Some(ETag::Strong(tag(bytes))),
                last_modified: modified(),
                ..Object::default()
            })
            .collect();
        let truncated = found.next().is_some();
        let next = contents.last().and_then(|last| last.key.clone()).filter(|_| truncated);
        contents.extend(self.strays.lock().iter().map(|key| Object { key: Some(key.clone()), ..Object::default() }));
        Ok(ListObjectsV2Output {
            is_truncated: Some(truncated),
            next_continuation_token: next,
            key_count: Some(contents.len() as i32),
            contents: Some(contents),
            ..ListObjectsV2Output::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<CreateMultipartUploadOutput> {
        bucket_exists(&request.input.bucket)?;
        let upload_id = format!("upload-{}", self.uploads_begun.fetch_add(1, Ordering::SeqCst));
        self.uploads.lock().insert(upload_id.clone(), BTreeMap::new());
        Ok(CreateMultipartUploadOutput { upload_id: Some(upload_id), ..CreateMultipartUploadOutput::default() })
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<UploadPartOutput> {
        let bytes = read(request.input.body).await?;
        let mut uploads = self.uploads.lock();
        let parts = uploads.get_mut(&request.input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        parts.insert(request.input.part_number, bytes.clone());
        Ok(UploadPartOutput { e_tag: Some(ETag::Strong(tag(&bytes))), ..UploadPartOutput::default() })
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let input = request.input;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let mut uploads = self.uploads.lock();
        let parts = uploads.get(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        let mut whole = Vec::new();
        for part in named {
            let bytes = part.part_number.and_then(|number| parts.get(&number)).ok_or_else(|| s3_error!(InvalidPart))?;
            if part.e_tag.is_none_or(|etag| etag.value() != tag(bytes)) {
                return Err(s3_error!(InvalidPart));
            }
            whole.extend_from_slice(bytes);
        }
        uploads.remove(&input.upload_id);
        let etag = ETag::Strong(tag(&whole));
        self.objects.lock().insert(input.key, Bytes::from(whole));
        Ok(CompleteMultipartUploadOutput { e_tag: Some(etag), ..CompleteMultipartUploadOutput::default() })
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<AbortMultipartUploadOutput> {
        self.uploads.lock().remove(&request.input.upload_id);
        Ok(AbortMultipartUploadOutput::default())
    }
}
