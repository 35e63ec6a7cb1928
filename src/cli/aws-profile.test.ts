import { expect, test } from "bun:test";
import { profileFrom } from "./aws-profile.ts";

const config = `# written by hive
[default]
region = eu-west-1
[profile hive]
region = us-east-1
endpoint_url = http://127.0.0.1:9999
s3 =
    addressing_style = path
`;
const credentials = "[hive]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = abc/def=\n";

test("a profile is read from both files", () => {
  expect(profileFrom(config, credentials, "hive")).toEqual({
    region: "us-east-1",
    endpointUrl: "http://127.0.0.1:9999",
    accessKeyId: "AKIAEXAMPLE",
    secretAccessKey: "abc/def=",
  });
});
test("the default profile has no prefix in the config file", () => {
  expect(profileFrom(config, "", "default")).toEqual({ region: "eu-west-1" });
});
test("a profile that neither file names is absent", () => {
  expect(profileFrom(config, credentials, "other")).toBeUndefined();
});
