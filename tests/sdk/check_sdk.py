"""Microsoft's own SDK, when it still had the action, against `reprovisiond simulate`: whether the simulator can be trusted to speak as Graph does.

Started by tests/sdk/run, over HTTP and over HTTPS. Exits with 1 at the first claim that does not hold.
"""

import asyncio
import datetime
import ssl
import sys
import time
import uuid

import httpx
from azure.core.credentials import AccessToken
from kiota_abstractions.base_request_configuration import RequestConfiguration
from kiota_authentication_azure.azure_identity_authentication_provider import AzureIdentityAuthenticationProvider
from msgraph_beta import GraphRequestAdapter, GraphServiceClient
from msgraph_beta.generated.device_management.managed_devices.bulk_reprovision_cloud_pc import (
    bulk_reprovision_cloud_pc_post_request_body as post_body,
)
from msgraph_beta.generated.models.action_state import ActionState
from msgraph_beta.generated.models.o_data_errors.o_data_error import ODataError
from msgraph_beta.graph_request_adapter import options
from msgraph_core import GraphClientFactory

from common import claim, simulator

# The reference page's two devices, and one that is nobody's.
SUCCEEDS = "30d0e128-de93-41dc-89ec-33d84bb662a0"
FAILS = "7c82a3e3-9459-44e4-94d9-b92f93bf78dd"
STRANGER = "11111111-2222-4333-8444-555555555555"


class Credential:
    """Asks the simulated Entra ID for an app-only token, as azure-identity does after it has discovered the tenant."""

    def __init__(self, about, client):
        self.about, self.client = about, client

    async def get_token(self, *scopes, **_):
        with open(self.about["client_secret_file"], encoding="utf-8") as file:
            secret = file.read()
        form = {
            "grant_type": "client_credentials",
            "client_id": self.about["client_id"],
            "client_secret": secret,
            "scope": " ".join(scopes),
        }
        url = f"{self.about['authority_url']}/{self.about['tenant_id']}/oauth2/v2.0/token"
        answer = await self.client.post(url, data=form)
        claim("status of the token endpoint", answer.status_code, 200)
        token = answer.json()
        return AccessToken(token["access_token"], int(time.time()) + token["expires_in"])

    async def close(self):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass


def graph_client(about, verify, plain):
    provider = AzureIdentityAuthenticationProvider(
        Credential(about, plain), scopes=[f"{about['graph_url']}/.default"], allowed_hosts=["127.0.0.1"]
    )
    http = GraphClientFactory.create_with_default_middleware(
        options=options, client=httpx.AsyncClient(verify=verify, trust_env=False)
    )
    adapter = GraphRequestAdapter(provider, client=http)
    adapter.base_url = f"{about['graph_url']}/beta"
    return GraphServiceClient(request_adapter=adapter)


async def check(about):
    verify = ssl.create_default_context(cafile=about["ca_file"]) if "ca_file" in about else True
    async with httpx.AsyncClient(verify=verify, trust_env=False) as plain:
        devices = graph_client(about, verify, plain).device_management.managed_devices

        call_id = str(uuid.uuid4())
        configuration = RequestConfiguration()
        configuration.headers.add("client-request-id", call_id)
        body = post_body.BulkReprovisionCloudPcPostRequestBody(managed_device_ids=[SUCCEEDS, FAILS, STRANGER])
        before = datetime.datetime.now(datetime.timezone.utc)
        result = await devices.bulk_reprovision_cloud_pc.post(body, configuration)
        claim("successfulDeviceIds", result.successful_device_ids, [SUCCEEDS])
        claim("failedDeviceIds", result.failed_device_ids, [FAILS])
        claim("notFoundDeviceIds", result.not_found_device_ids, [STRANGER])
        claim("notSupportedDeviceIds", result.not_supported_device_ids, [])

        read = await devices.by_managed_device_id(SUCCEEDS).get_cloud_pc_remote_action_results.get()
        claim("number of remote actions", len(read.value), 1)
        action = read.value[0]
        claim("actionName", action.action_name, "Reprovision")
        claim("actionState", action.action_state, ActionState.Pending)
        claim("managedDeviceId", str(action.managed_device_id), SUCCEEDS)
        fleet = (await plain.get(f"{about['graph_url']}/simulator/fleet")).json()
        cloud_pc_id = next(device["cloud_pc_id"] for device in fleet if device["managed_device_id"] == SUCCEEDS)
        claim("cloudPcId", str(action.cloud_pc_id), cloud_pc_id)
        off = abs((action.start_date_time - before).total_seconds())
        claim(f"startDateTime within a minute of the call ({off} s off)", off < 60, True)
        claim("keys the SDK does not know", sorted(action.additional_data), ["statusDetail"])

        read = await devices.by_managed_device_id(FAILS).get_cloud_pc_remote_action_results.get()
        claim("remote actions of a device that was not accepted", read.value, [])

        try:
            await devices.by_managed_device_id(STRANGER).get_cloud_pc_remote_action_results.get()
        except ODataError as error:
            claim("status for an unknown device", error.response_status_code, 404)
            claim("error code for an unknown device", error.error.code, "ResourceNotFound")
            claim("innerError is read", error.error.inner_error.request_id is not None, True)
        else:
            sys.exit("FAIL: the read-back of an unknown device must be an ODataError")

        ledger = (await plain.get(f"{about['graph_url']}/simulator/ledger")).json()
        told = [(entry["managed_device_id"], entry["client_request_id"], entry["answered"]) for entry in ledger]
        claim("ledger", told, [(SUCCEEDS, call_id, True)])


def main():
    binary = sys.argv[1]
    for flags in ([], ["--tls"]):
        # Slow enough that the action is still pending when it is read back.
        with simulator(binary, "--answer-shape", "bare", "--pending", "1h", *flags) as about:
            asyncio.run(check(about))
    print("PASS: msgraph-beta-sdk 1.0.0 reprovisions and reads back through the simulator, over HTTP and HTTPS")


if __name__ == "__main__":
    main()
