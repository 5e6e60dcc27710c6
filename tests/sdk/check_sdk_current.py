"""Microsoft's current SDK, which has the action's successors, against `reprovisiond simulate`: the Cloud PC list, bulk
actions, the reprovision of one Cloud PC, `$batch` and the read-back, with a token that azure-identity fetches.

Started by tests/sdk/run, over HTTPS: azure-identity takes no other authority. Exits with 1 at the first claim that fails.
"""

import asyncio
import os
import ssl
import sys
import uuid

import httpx
from azure.identity import ClientSecretCredential
from kiota_abstractions.base_request_configuration import RequestConfiguration
from kiota_authentication_azure.azure_identity_authentication_provider import AzureIdentityAuthenticationProvider
from msgraph_beta import GraphRequestAdapter, GraphServiceClient
from msgraph_beta.generated.device_management.virtual_endpoint.bulk_actions.bulk_actions_request_builder import (
    BulkActionsRequestBuilder,
)
from msgraph_beta.generated.device_management.virtual_endpoint.cloud_p_cs.cloud_p_cs_request_builder import (
    CloudPCsRequestBuilder,
)
from msgraph_beta.generated.device_management.virtual_endpoint.cloud_p_cs.item.reprovision import (
    reprovision_post_request_body as post_body,
)
from msgraph_beta.generated.models.action_state import ActionState
from msgraph_beta.generated.models.cloud_pc_bulk_action_status import CloudPcBulkActionStatus
from msgraph_beta.generated.models.cloud_pc_bulk_reprovision import CloudPcBulkReprovision
from msgraph_beta.generated.models.cloud_pc_operating_system import CloudPcOperatingSystem
from msgraph_beta.generated.models.o_data_errors.o_data_error import ODataError
from msgraph_beta.graph_request_adapter import options
from msgraph_core import GraphClientFactory
from msgraph_core.requests.batch_request_builder import BatchRequestBuilder
from msgraph_core.requests.batch_request_content import BatchRequestContent
from msgraph_core.requests.batch_request_item import BatchRequestItem
from msgraph_core.tasks.page_iterator import PageIterator

from common import claim, simulator

SUCCEEDS = "30d0e128-de93-41dc-89ec-33d84bb662a0"
FAILS = "7c82a3e3-9459-44e4-94d9-b92f93bf78dd"
STRANGER = "11111111-2222-4333-8444-555555555555"


def graph_adapter(about, version):
    with open(about["client_secret_file"], encoding="utf-8") as file:
        secret = file.read()
    credential = ClientSecretCredential(
        about["tenant_id"],
        about["client_id"],
        secret,
        authority=about["authority_url"],
        disable_instance_discovery=True,
        connection_verify=about["ca_file"],
    )
    provider = AzureIdentityAuthenticationProvider(
        credential, scopes=[f"{about['graph_url']}/.default"], allowed_hosts=["127.0.0.1"]
    )
    verify = ssl.create_default_context(cafile=about["ca_file"])
    http = GraphClientFactory.create_with_default_middleware(
        options=options, client=httpx.AsyncClient(verify=verify, trust_env=False)
    )
    adapter = GraphRequestAdapter(provider, client=http)
    adapter.base_url = f"{about['graph_url']}/{version}"
    return adapter


async def list_cloud_pcs(adapter):
    """Managed device ID to Cloud PC ID, of all pages."""
    cloud_pcs = GraphServiceClient(request_adapter=adapter).device_management.virtual_endpoint.cloud_p_cs
    parameters = CloudPCsRequestBuilder.CloudPCsRequestBuilderGetQueryParameters
    query = parameters(select=["id", "managedDeviceId"], top=3, count=True)
    first = await cloud_pcs.get(RequestConfiguration(query_parameters=query))
    claim("@odata.count", first.odata_count, 10)
    claim("Cloud PCs on the first page", len(first.value), 3)
    found = {}

    def take(cloud_pc):
        found[cloud_pc.managed_device_id] = cloud_pc.id
        return True

    await PageIterator(first, adapter).iterate(take)
    claim("Cloud PCs on all pages", len(found), 10)

    query = parameters(filter=f"managedDeviceId eq '{SUCCEEDS}'")
    only = await cloud_pcs.get(RequestConfiguration(query_parameters=query))
    claim("Cloud PCs of one managed device", [cloud_pc.id for cloud_pc in only.value], [found[SUCCEEDS]])
    one = await cloud_pcs.by_cloud_p_c_id(found[FAILS]).get()
    claim("managedDeviceId of one Cloud PC", one.managed_device_id, FAILS)
    claim("keys the SDK does not know", sorted(set(one.additional_data) - {"@odata.context"}), [])
    return found


async def check_bulk_action(endpoint, found):
    bulk_actions = endpoint.bulk_actions
    name = f"call {uuid.uuid4()}"
    body = CloudPcBulkReprovision(display_name=name, cloud_pc_ids=[found[SUCCEEDS], found[FAILS]])
    created = await bulk_actions.post(body)
    claim("type of the bulk action", type(created), CloudPcBulkReprovision)
    claim("status of the bulk action", created.status, CloudPcBulkActionStatus.Pending)
    claim("cloudPcIds", created.cloud_pc_ids, [found[SUCCEEDS], found[FAILS]])
    parameters = BulkActionsRequestBuilder.BulkActionsRequestBuilderGetQueryParameters
    query = parameters(filter=f"displayName eq '{name}'", orderby=["createdDateTime desc"])
    looked_up = await bulk_actions.get(RequestConfiguration(query_parameters=query))
    claim("bulk actions of that name", [bulk.id for bulk in looked_up.value], [created.id])
    summary = (await bulk_actions.by_cloud_pc_bulk_action_id(created.id).get()).action_summary
    counts = (
        summary.successful_count,
        summary.failed_count,
        summary.in_progress_count,
        summary.pending_count,
        summary.not_supported_count,
    )
    claim("successful, failed, in progress, pending, not supported", counts, (0, 1, 1, 0, 0))
    claim("keys the SDK does not know", sorted(summary.additional_data), [])
    for device, state in ((SUCCEEDS, ActionState.Active), (FAILS, ActionState.Failed)):
        read = await endpoint.cloud_p_cs.by_cloud_p_c_id(found[device]).retrieve_cloud_p_c_remote_action_results.get()
        actions = [(action.action_name, action.action_state) for action in read.value]
        claim("remote actions", actions, [("Reprovision", state)])
        claim("cloudPcId", read.value[0].cloud_pc_id, found[device])


async def check_one(cloud_pcs, found):
    body = post_body.ReprovisionPostRequestBody(os_version=CloudPcOperatingSystem.Windows11)
    claim("answer to a reprovision", await cloud_pcs.by_cloud_p_c_id(found[SUCCEEDS]).reprovision.post(body), None)
    for device, status, code in ((found[FAILS], 409, "Conflict"), (STRANGER, 404, "ResourceNotFound")):
        try:
            await cloud_pcs.by_cloud_p_c_id(device).reprovision.post(body)
        except ODataError as error:
            claim("refusal", (error.response_status_code, error.error.code), (status, code))
        else:
            sys.exit("FAIL: a refused reprovision must be an ODataError")


async def check_batch(adapter, cloud_pcs, found):
    asked = {}
    batch = BatchRequestContent()
    for cloud_pc in (found[SUCCEEDS], found[FAILS], STRANGER):
        # Not an empty one: this SDK writes `{}` into a batch as base64.
        body = post_body.ReprovisionPostRequestBody(os_version=CloudPcOperatingSystem.Windows11)
        request = cloud_pcs.by_cloud_p_c_id(cloud_pc).reprovision.to_post_request_information(body)
        item = BatchRequestItem(request)
        # This SDK leaves the URL absolute, which is not what Graph's page on $batch describes.
        item.url = request.url.removeprefix(adapter.base_url)
        batch.add_request(item.id, item)
        asked[cloud_pc] = item.id
    answer = await BatchRequestBuilder(adapter).post(batch)
    statuses = {cloud_pc: answer.get_response_by_id(asked[cloud_pc]).status for cloud_pc in asked}
    claim("statuses in the batch", statuses, {found[SUCCEEDS]: 204, found[FAILS]: 409, STRANGER: 404})


async def check(about):
    adapter = graph_adapter(about, "v1.0")
    found = await list_cloud_pcs(adapter)
    cloud_pcs = GraphServiceClient(request_adapter=adapter).device_management.virtual_endpoint.cloud_p_cs
    await check_one(cloud_pcs, found)
    await check_batch(adapter, cloud_pcs, found)
    claim("wipes in v1.0", await wipes(about), [SUCCEEDS, SUCCEEDS])


async def check_beta(about):
    adapter = graph_adapter(about, "beta")
    found = await list_cloud_pcs(adapter)
    await check_bulk_action(GraphServiceClient(request_adapter=adapter).device_management.virtual_endpoint, found)
    claim("wipes in beta", await wipes(about), [SUCCEEDS])


async def wipes(about):
    verify = ssl.create_default_context(cafile=about["ca_file"])
    async with httpx.AsyncClient(verify=verify, trust_env=False) as plain:
        ledger = (await plain.get(f"{about['graph_url']}/simulator/ledger")).json()
    claim("answered", all(entry["answered"] for entry in ledger), True)
    return [entry["managed_device_id"] for entry in ledger]


def main():
    # azure-identity heeds the environment's proxy; the loopback needs none.
    os.environ["NO_PROXY"] = "127.0.0.1"
    # Nothing is pending, and what runs goes on running.
    flags = ["--tls", "--devices", "8", "--not-found", "0", "--page-size", "4", "--pending", "0", "--active", "1h"]
    for what in (check, check_beta):
        with simulator(sys.argv[1], *flags) as about:
            asyncio.run(what(about))
    print("PASS: msgraph-beta-sdk 1.66.0 lists, reprovisions by each successor, and reads back, with azure-identity")


if __name__ == "__main__":
    main()
