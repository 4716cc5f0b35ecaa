// Uses a Firehose endpoint as an application would: client URL STREAM BUCKET. Prints what it saw as one line of JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/firehose"
	"github.com/aws/aws-sdk-go-v2/service/firehose/types"
	"github.com/aws/smithy-go"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func code[T any](_ T, err error) string {
	var known smithy.APIError
	if errors.As(err, &known) {
		return known.ErrorCode()
	}
	return "no error"
}

func main() {
	ctx := context.Background()
	name := aws.String(os.Args[2])
	role := aws.String("arn:aws:iam::000000000000:role/firehose")
	client := firehose.New(firehose.Options{
		BaseEndpoint:     aws.String(os.Args[1]),
		Region:           "us-east-1",
		RetryMaxAttempts: 1,
		Credentials:      credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	created := must(client.CreateDeliveryStream(ctx, &firehose.CreateDeliveryStreamInput{
		DeliveryStreamName: name,
		DeliveryStreamType: types.DeliveryStreamTypeDirectPut,
		ExtendedS3DestinationConfiguration: &types.ExtendedS3DestinationConfiguration{
			RoleARN:           role,
			BucketARN:         aws.String("arn:aws:s3:::" + os.Args[3]),
			Prefix:            aws.String("events/"),
			BufferingHints:    &types.BufferingHints{SizeInMBs: aws.Int32(1), IntervalInSeconds: aws.Int32(60)},
			CompressionFormat: types.CompressionFormatGzip,
		},
		Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("lake")}},
	}))
	single := must(client.PutRecord(ctx, &firehose.PutRecordInput{
		DeliveryStreamName: name, Record: &types.Record{Data: []byte("one\n")},
	}))
	batch := must(client.PutRecordBatch(ctx, &firehose.PutRecordBatchInput{
		DeliveryStreamName: name, Records: []types.Record{{Data: []byte("two\n")}, {Data: []byte("größer\n")}},
	}))
	must(client.TagDeliveryStream(ctx, &firehose.TagDeliveryStreamInput{
		DeliveryStreamName: name, Tags: []types.Tag{{Key: aws.String("stage"), Value: aws.String("test")}},
	}))
	must(client.UntagDeliveryStream(ctx, &firehose.UntagDeliveryStreamInput{
		DeliveryStreamName: name, TagKeys: []string{"team"},
	}))
	told := must(client.ListTagsForDeliveryStream(ctx, &firehose.ListTagsForDeliveryStreamInput{DeliveryStreamName: name}))
	tags := [][]string{}
	for _, tag := range told.Tags {
		tags = append(tags, []string{*tag.Key, *tag.Value})
	}
	describe := func() *types.DeliveryStreamDescription {
		return must(client.DescribeDeliveryStream(ctx, &firehose.DescribeDeliveryStreamInput{
			DeliveryStreamName: name,
		})).DeliveryStreamDescription
	}
	before := describe()
	must(client.UpdateDestination(ctx, &firehose.UpdateDestinationInput{
		DeliveryStreamName:             name,
		CurrentDeliveryStreamVersionId: before.VersionId,
		DestinationId:                  before.Destinations[0].DestinationId,
		ExtendedS3DestinationUpdate:    &types.ExtendedS3DestinationUpdate{Prefix: aws.String("later/")},
	}))
	after := describe()
	listed := false
	for _, one := range must(client.ListDeliveryStreams(ctx, &firehose.ListDeliveryStreamsInput{Limit: aws.Int32(100)})).DeliveryStreamNames {
		listed = listed || one == *name
	}
	failures := []string{
		code(client.PutRecord(ctx, &firehose.PutRecordInput{
			DeliveryStreamName: aws.String("gone"), Record: &types.Record{Data: []byte("x")},
		})),
		code(client.CreateDeliveryStream(ctx, &firehose.CreateDeliveryStreamInput{
			DeliveryStreamName: name,
			S3DestinationConfiguration: &types.S3DestinationConfiguration{
				RoleARN: role, BucketARN: aws.String("arn:aws:s3:::b"),
			},
		})),
		code(client.PutRecord(ctx, &firehose.PutRecordInput{
			DeliveryStreamName: name, Record: &types.Record{Data: make([]byte, 1_024_001)},
		})),
	}
	deleted := len(os.Args) < 5
	if deleted {
		must(client.DeleteDeliveryStream(ctx, &firehose.DeleteDeliveryStreamInput{DeliveryStreamName: name}))
	}
	prefix := func(one *types.DeliveryStreamDescription) string {
		return *one.Destinations[0].ExtendedS3DestinationDescription.Prefix
	}
	recordID := "undefined"
	if single.RecordId != nil {
		recordID = "string"
	}
	must(0, json.NewEncoder(os.Stdout).Encode(map[string]any{
		"arn":            created.DeliveryStreamARN,
		"recordId":       recordID,
		"encrypted":      single.Encrypted,
		"failedPutCount": batch.FailedPutCount,
		"responses":      len(batch.RequestResponses),
		"tags":           tags,
		"status":         before.DeliveryStreamStatus,
		"created":        before.CreateTimestamp.Unix() > 0,
		"versions":       []string{*before.VersionId, *after.VersionId},
		"prefixes":       []string{prefix(before), prefix(after)},
		"listed":         listed,
		"errors":         failures,
		"deleted":        deleted,
	}))
}
