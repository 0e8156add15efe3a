using Grpc.Core;
using Tensormesh.MockDevicePlugin.V1Beta1;

namespace Tensormesh.MockDevicePlugin;

/// <summary>What the kubelet asks of a device plugin.</summary>
internal sealed class DevicePluginService(GpuInventory inventory, PluginOptions options, Journal journal, IHostApplicationLifetime lifetime)
    : DevicePlugin.DevicePluginBase
{
    public static DevicePluginOptions Options => new() { PreStartRequired = false, GetPreferredAllocationAvailable = true };

    public override Task<DevicePluginOptions> GetDevicePluginOptions(Empty request, ServerCallContext context) => Task.FromResult(Options);

    public override async Task ListAndWatch(Empty request, IServerStreamWriter<ListAndWatchResponse> stream, ServerCallContext context)
    {
        // The stream must end when the session does, or the host would wait its whole shutdown timeout for it.
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, lifetime.ApplicationStopping);
        try
        {
            while (true)
            {
                var (list, changed) = inventory.Snapshot();
                await stream.WriteAsync(list, ending.Token);
                journal.Write($"listed {list.Devices.Count} devices, {list.Devices.Count(device => device.Health != "Healthy")} unhealthy");
                await changed.WaitAsync(ending.Token);
            }
        }
        catch (Exception e) when (ending.IsCancellationRequested && e is OperationCanceledException or InvalidOperationException or IOException)
        {
            journal.Write("list-and-watch stream ended");
        }
    }

    /// <summary>Lowest indexes first, so that who gets which GPU is the same in every run.</summary>
    public override Task<PreferredAllocationResponse> GetPreferredAllocation(PreferredAllocationRequest request, ServerCallContext context)
    {
        var response = new PreferredAllocationResponse();
        foreach (var container in request.ContainerRequests)
        {
            var rest = inventory.InIndexOrder(Known(container.AvailableDeviceIDs)).Except(container.MustIncludeDeviceIDs);
            var preferred = new ContainerPreferredAllocationResponse();
            preferred.DeviceIDs.AddRange(Known(container.MustIncludeDeviceIDs).Concat(rest).Take(container.AllocationSize));
            response.ContainerResponses.Add(preferred);
        }

        return Task.FromResult(response);
    }

    public override Task<AllocateResponse> Allocate(AllocateRequest request, ServerCallContext context)
    {
        var response = new AllocateResponse();
        foreach (var container in request.ContainerRequests)
        {
            var devices = string.Join(',', inventory.InIndexOrder(Known(container.DevicesIDs)));
            var answer = new ContainerAllocateResponse { Envs = { ["NVIDIA_VISIBLE_DEVICES"] = devices } };
            if (options.Driver is { } folder) DriverFolder.MountInto(answer, folder, devices);
            response.ContainerResponses.Add(answer);
            journal.Write($"allocated {container.DevicesIDs.Count} devices: {devices}");
        }

        return Task.FromResult(response);
    }

    public override Task<PreStartContainerResponse> PreStartContainer(PreStartContainerRequest request, ServerCallContext context) =>
        Task.FromResult(new PreStartContainerResponse());

    private IEnumerable<string> Known(IEnumerable<string> uuids)
    {
        foreach (var uuid in uuids)
        {
            yield return inventory.Contains(uuid)
                ? uuid
                : throw new RpcException(new Status(StatusCode.InvalidArgument, $"device {uuid} is not on this node"));
        }
    }
}
