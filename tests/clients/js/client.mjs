// Uses a Firehose endpoint as an application would: node client.mjs URL. Prints what it saw as one line of JSON.
import {
  CreateDeliveryStreamCommand,
  DeleteDeliveryStreamCommand,
  DescribeDeliveryStreamCommand,
  FirehoseClient,
  ListDeliveryStreamsCommand,
  ListTagsForDeliveryStreamCommand,
  PutRecordBatchCommand,
  PutRecordCommand,
  TagDeliveryStreamCommand,
  UntagDeliveryStreamCommand,
  UpdateDestinationCommand,
} from "@aws-sdk/client-firehose";

const [endpoint, name, bucket] = process.argv.slice(2);
const client = new FirehoseClient({
  endpoint,
  region: "us-east-1",
  maxAttempts: 1,
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
});
const stream = { DeliveryStreamName: name };
const utf8 = (text) => new TextEncoder().encode(text);
const failed = async (command) => {
  try {
    await client.send(command);
    return "no error";
  } catch (error) {
    return error.name;
  }
};

const created = await client.send(
  new CreateDeliveryStreamCommand({
    ...stream,
    DeliveryStreamType: "DirectPut",
    ExtendedS3DestinationConfiguration: {
      RoleARN: "arn:aws:iam::000000000000:role/firehose",
      BucketARN: `arn:aws:s3:::${bucket}`,
      Prefix: "events/",
      BufferingHints: { SizeInMBs: 1, IntervalInSeconds: 60 },
      CompressionFormat: "GZIP",
    },
    Tags: [{ Key: "team", Value: "lake" }],
  }),
);
const single = await client.send(new PutRecordCommand({ ...stream, Record: { Data: utf8("one\n") } }));
const batch = await client.send(
  new PutRecordBatchCommand({ ...stream, Records: ["two\n", "größer\n"].map((text) => ({ Data: utf8(text) })) }),
);
await client.send(new TagDeliveryStreamCommand({ ...stream, Tags: [{ Key: "stage", Value: "test" }] }));
await client.send(new UntagDeliveryStreamCommand({ ...stream, TagKeys: ["team"] }));
const tags = await client.send(new ListTagsForDeliveryStreamCommand(stream));
const before = (await client.send(new DescribeDeliveryStreamCommand(stream))).DeliveryStreamDescription;
await client.send(
  new UpdateDestinationCommand({
    ...stream,
    CurrentDeliveryStreamVersionId: before.VersionId,
    DestinationId: before.Destinations[0].DestinationId,
    ExtendedS3DestinationUpdate: { Prefix: "later/" },
  }),
);
const after = (await client.send(new DescribeDeliveryStreamCommand(stream))).DeliveryStreamDescription;
const listed = await client.send(new ListDeliveryStreamsCommand({ Limit: 100 }));
const errors = [
  await failed(new PutRecordCommand({ DeliveryStreamName: "gone", Record: { Data: utf8("x") } })),
  await failed(new CreateDeliveryStreamCommand({ ...stream, S3DestinationConfiguration: { RoleARN: "arn:aws:iam::000000000000:role/r", BucketARN: "arn:aws:s3:::b" } })),
  await failed(new PutRecordCommand({ ...stream, Record: { Data: new Uint8Array(1_024_001) } })),
];
const goes = process.argv[5] === "keep" ? null : await client.send(new DeleteDeliveryStreamCommand(stream));

process.stdout.write(
  `${JSON.stringify({
    arn: created.DeliveryStreamARN,
    recordId: typeof single.RecordId,
    encrypted: single.Encrypted,
    failedPutCount: batch.FailedPutCount,
    responses: batch.RequestResponses.length,
    tags: tags.Tags.map((tag) => [tag.Key, tag.Value]),
    status: before.DeliveryStreamStatus,
    created: before.CreateTimestamp.getTime() > 0,
    versions: [before.VersionId, after.VersionId],
    prefixes: [before, after].map((one) => one.Destinations[0].ExtendedS3DestinationDescription.Prefix),
    listed: listed.DeliveryStreamNames.includes(name),
    errors,
    deleted: goes !== null,
  })}\n`,
);
