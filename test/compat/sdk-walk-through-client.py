"""boto3's part of the walk-through. Arguments: AMI. The endpoint is HIVE_ENDPOINT. Prints `done` when all went as it should."""

import os
import sys

import boto3
from botocore.exceptions import ClientError

session = boto3.Session()
endpoint = os.environ["HIVE_ENDPOINT"]
ec2 = session.resource("ec2", endpoint_url=endpoint)
client = session.client("ec2", endpoint_url=endpoint)
assert session.client("sts", endpoint_url=endpoint).get_caller_identity()["Account"] == "000000000000"

(instance,) = ec2.create_instances(
    ImageId=sys.argv[1], InstanceType="h1.nano", MinCount=1, MaxCount=1, UserData="#!/bin/sh\necho by boto3\n"
)
instance.create_tags(Tags=[{"Key": "Name", "Value": "boto"}])
instance.wait_until_running()
instance.reload()
assert instance.state["Name"] == "running", instance.state
assert instance.tags == [{"Key": "Name", "Value": "boto"}], instance.tags
found = list(ec2.instances.filter(Filters=[{"Name": "tag:Name", "Values": ["bo*"]}]))
assert [i.id for i in found] == [instance.id], found
assert {v.id for v in instance.volumes.all()} == {instance.block_device_mappings[0]["Ebs"]["VolumeId"]}
types = client.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 5})
assert sum(len(page["InstanceTypes"]) for page in types) > 5
try:
    client.describe_instances(InstanceIds=["i-0123456789abcdef0"])
    raise AssertionError("an unknown instance was described")
except ClientError as error:
    assert error.response["Error"]["Code"] == "InvalidInstanceID.NotFound", error
    assert error.response["ResponseMetadata"]["RequestId"], error
instance.terminate()
instance.wait_until_terminated()
print("done")
