import { describe, expect, test } from "bun:test";
import { awsError } from "../model/errors.ts";
import type { DescribeInstancesResult, Instance } from "../schema/ec2/types.ts";
import { encodeEc2Error, encodeEc2Response, markCacheable } from "./ec2-xml.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const PROLOGUE = '<?xml version="1.0" encoding="UTF-8"?>\n';
const NAMESPACE = 'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"';

test("an answer is EC2's, element for element", () => {
  const output: DescribeInstancesResult = {
    Reservations: [
      {
        ReservationId: "r-1",
        Groups: [],
        Instances: [
          {
            InstanceId: "i-1",
            LaunchTime: new Date("2016-11-15T08:30:00Z"),
            EbsOptimized: false,
            AmiLaunchIndex: 0,
            State: { Code: 16, Name: "running" },
            Tags: [{ Key: "a<b", Value: 'c&"d' }],
          },
        ],
      },
    ],
  };
  const xml = text(encodeEc2Response("DescribeInstances", output, "req-1"));
  expect(xml).toStartWith(
    `${PROLOGUE}<DescribeInstancesResponse ${NAMESPACE}><requestId>req-1</requestId><reservationSet><item>`,
  );
  expect(xml).toContain("<reservationId>r-1</reservationId>");
  expect(xml).toContain("<groupSet/>");
  expect(xml).toContain("<instanceState><code>16</code><name>running</name></instanceState>");
  expect(xml).toContain("<launchTime>2016-11-15T08:30:00.000Z</launchTime>");
  expect(xml).toContain("<ebsOptimized>false</ebsOptimized>");
  expect(xml).toContain("<tagSet><item><key>a&lt;b</key><value>c&amp;&quot;d</value></item></tagSet>");
  expect(xml).toEndWith("</item></reservationSet></DescribeInstancesResponse>");
});

test("an operation without an output answers that it did", () => {
  expect(text(encodeEc2Response("RebootInstances", {}, "req-1"))).toBe(
    `${PROLOGUE}<RebootInstancesResponse ${NAMESPACE}><requestId>req-1</requestId><return>true</return></RebootInstancesResponse>`,
  );
});

test("an error is EC2's, and its cause stays here", () => {
  const error = {
    ...awsError("InvalidInstanceID.NotFound", "The instance ID 'i-<1>' does not exist"),
    cause: "secret",
  };
  expect(text(encodeEc2Error(error, "req-1"))).toBe(
    `${PROLOGUE}<Response><Errors><Error><Code>InvalidInstanceID.NotFound</Code><Message>The instance ID &apos;i-&lt;1&gt;&apos; does not exist</Message></Error></Errors><RequestID>req-1</RequestID></Response>`,
  );
});

describe("fragments", () => {
  const answer = (...instances: Instance[]) =>
    text(encodeEc2Response("DescribeInstances", { Reservations: [{ Instances: instances }] }, "r"));

  test("an object that is not frozen is rendered anew", () => {
    const instance: { InstanceId: string } = { InstanceId: "i-1" };
    expect(answer(instance)).toContain("i-1");
    instance.InstanceId = "i-2";
    expect(answer(instance)).toContain("i-2");
  });

  test("a marked one is rendered once", () => {
    let reads = 0;
    const instance = markCacheable({
      get InstanceId() {
        reads++;
        return "i-1";
      },
    });
    reads = 0;
    const first = answer(instance);
    expect(reads).toBe(1);
    expect(answer(instance, instance)).toContain(
      "<instanceId>i-1</instanceId></item><item><instanceId>i-1</instanceId>",
    );
    expect(answer(instance)).toBe(first);
    expect(reads).toBe(1);
  });

  test("marking freezes to the bottom, so that a kept fragment cannot go stale", () => {
    const instance = markCacheable({ Tags: [{ Key: "a", Value: "b" }] });
    expect(() => {
      instance.Tags[0]!.Value = "c";
    }).toThrow();
    expect(() => instance.Tags.push({ Key: "x", Value: "y" })).toThrow();
  });

  test("one object as two shapes has the XML of each", () => {
    const shared = markCacheable({ State: "available" });
    const vpcs = () => text(encodeEc2Response("DescribeVpcs", { Vpcs: [shared as never] }, "r"));
    const volumes = () => text(encodeEc2Response("DescribeVolumes", { Volumes: [shared as never] }, "r"));
    for (let time = 0; time < 2; time++) {
      expect(vpcs()).toContain("<vpcSet><item><state>available</state></item></vpcSet>");
      expect(volumes()).toContain("<volumeSet><item><status>available</status></item></volumeSet>");
    }
  });

  test("a failure while one is rendered leaves no trace", () => {
    const bad = markCacheable({ LaunchTime: new Date(Number.NaN) });
    expect(() => answer(bad)).toThrow();
    const good = markCacheable({ InstanceId: "i-3", Tags: [{ Key: "k", Value: "v" }] });
    expect(answer(good)).toBe(answer({ ...good }));
  });
});
