using System.Diagnostics;
using System.Net;
using System.Text.Json.Nodes;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests;

/// <summary>Start, faults and end of dev clusters of their own: what is there meanwhile, and that nothing is there afterwards.</summary>
public sealed class DevClusterLifeTests
{
    private static CancellationToken Ended => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_restarted_api_server_has_the_same_address_and_objects_and_users_have_only_their_rights()
    {
        Assert.SkipUnless(
            string.IsNullOrEmpty(Environment.GetEnvironmentVariable("TENSORMESH_KUBECONFIG")), "a user's own cluster is not stopped");
        var cluster = await DevCluster.StartAsync(new DevClusterOptions { RealNode = false, HollowGpuB = true }, Console.WriteLine, Ended);
        var state = cluster.StateDirectory;
        try
        {
            await cluster.Client.CoreV1.CreateNamespaceAsync(
                new V1Namespace { Metadata = new V1ObjectMeta { Name = "kept" } }, cancellationToken: Ended);

            await cluster.StopApiServerAsync();
            await Assert.ThrowsAnyAsync<HttpRequestException>(
                () => cluster.Client.CoreV1.ReadNamespaceAsync("kept", cancellationToken: Ended));
            await cluster.StartApiServerAsync();
            Assert.Equal("kept", (await cluster.Client.CoreV1.ReadNamespaceAsync("kept", cancellationToken: Ended)).Name());

            using var stranger = Client(cluster.CreateKubeconfig("mallory", "team-x"));
            var refused = await Assert.ThrowsAsync<HttpOperationException>(
                () => stranger.CoreV1.ListNamespaceAsync(cancellationToken: Ended));
            Assert.Equal(HttpStatusCode.Forbidden, refused.Response.StatusCode);
            Assert.Contains("mallory", refused.Response.Content, StringComparison.Ordinal);
            using var administrator = Client(cluster.CreateKubeconfig("operator", "system:masters"));
            Assert.Contains(
                (await administrator.CoreV1.ListNodeAsync(cancellationToken: Ended)).Items, node => node.Name() == "gpu-b");
        }
        finally
        {
            await cluster.DisposeAsync();
        }

        Assert.False(Directory.Exists(state));
        Assert.Empty(ProcessesNaming(state));
    }

    [Fact]
    public void A_real_node_is_worth_a_build_and_nothing_is_built_where_it_cannot_be_had()
    {
        Assert.Equal(
            [ControlPlaneBinaries.Source.Build, ControlPlaneBinaries.Source.Archives], ControlPlaneBinaries.Order(forRealNode: true, canBuild: true));
        Assert.Equal(
            [ControlPlaneBinaries.Source.Archives, ControlPlaneBinaries.Source.Build], ControlPlaneBinaries.Order(forRealNode: false, canBuild: true));
        Assert.Equal([ControlPlaneBinaries.Source.Archives], ControlPlaneBinaries.Order(forRealNode: true, canBuild: false));
        Assert.Equal([ControlPlaneBinaries.Source.Archives], ControlPlaneBinaries.Order(forRealNode: false, canBuild: false));
    }

    [Fact]
    public async Task A_state_directory_that_is_in_use_or_too_long_is_refused()
    {
        var used = Directory.CreateTempSubdirectory("tm");
        await File.WriteAllTextAsync(Path.Combine(used.FullName, "precious"), "", Ended);
        await Assert.ThrowsAsync<ArgumentException>(
            () => DevCluster.StartAsync(new DevClusterOptions { StateDirectory = used.FullName }, Console.WriteLine, Ended));
        Assert.True(File.Exists(Path.Combine(used.FullName, "precious")));
        used.Delete(recursive: true);

        await Assert.ThrowsAsync<ArgumentException>(
            () => DevCluster.StartAsync(
                new DevClusterOptions { StateDirectory = "/tmp/" + new string('x', 80) }, Console.WriteLine, Ended));
    }

    /// <summary>
    /// The owner is killed with SIGKILL while a container runs on its real node: nothing can tidy up but the kernel
    /// and the next start.
    /// </summary>
    [Fact]
    public async Task Nothing_is_left_of_a_cluster_whose_owner_was_killed()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "a real node needs root");
        Assert.SkipUnless(
            string.IsNullOrEmpty(Environment.GetEnvironmentVariable("TENSORMESH_KUBECONFIG")), "a user's own cluster is not killed");
        using var owner = StartOwner();
        var exports = await ExportsAsync(owner);
        var state = exports["TENSORMESH_STATE_DIRECTORY"];
        var recordFile = state + ".cluster.json";
        await StartContainerAsync(exports["KUBECONFIG"]);
        var record = JsonNode.Parse(await File.ReadAllTextAsync(recordFile, Ended))!;
        var interfaces = record["Interfaces"]!.AsArray().Select(each => (string)each!).ToList();
        var addresses = record["LoopbackAddresses"]!.AsArray().Select(each => IPAddress.Parse(((string)each!).Split('/')[0])).ToList();
        Assert.NotEmpty(ProcessesNaming(state));
        Assert.All(interfaces, name => Assert.True(Directory.Exists("/sys/class/net/" + name)));
        Assert.Single(addresses, OnThisMachine);
        Assert.NotEmpty(CgroupsNamed((string)record["CgroupName"]!));

        owner.Kill();
        await owner.WaitForExitAsync(Ended);
        await DevCluster.SweepAsync(Ended);

        Assert.Empty(ProcessesNaming(state));
        Assert.All(interfaces, name => Assert.False(Directory.Exists("/sys/class/net/" + name)));
        Assert.DoesNotContain(addresses, OnThisMachine);
        Assert.Empty(CgroupsNamed((string)record["CgroupName"]!));
        Assert.DoesNotContain(state, await File.ReadAllTextAsync("/proc/self/mounts", Ended), StringComparison.Ordinal);
        Assert.DoesNotContain($"10.244.{addresses[0].GetAddressBytes()[2]}.", await RulesAsync(), StringComparison.Ordinal);
        Assert.False(Directory.Exists(state));
        Assert.False(File.Exists(recordFile));
    }

    private static Kubernetes Client(string kubeconfig) => new(KubernetesClientConfiguration.BuildConfigFromConfigFile(kubeconfig));

    private static Process StartOwner()
    {
        var program = Path.Combine(AppContext.BaseDirectory, "Tensormesh.TestKit");
        return Process.Start(new ProcessStartInfo(program) { RedirectStandardOutput = true })!;
    }

    /// <summary>Reads the owner's output up to the last of the lines that a shell would source.</summary>
    private static async Task<Dictionary<string, string>> ExportsAsync(Process owner)
    {
        var exports = new Dictionary<string, string>();
        while (!exports.ContainsKey("TENSORMESH_STATE_DIRECTORY"))
        {
            var line = await owner.StandardOutput.ReadLineAsync(Ended);
            Assert.NotNull(line);
            if (line.Split(' ', '=') is ["export", var name, var value, ..])
                exports[name] = value;
        }

        return exports;
    }

    private static async Task StartContainerAsync(string kubeconfig)
    {
        await Kubectl.RunAsync(kubeconfig, "run", "left", "--image", DevCluster.WorkloadImage, "--restart=Never");
        await Kubectl.RunAsync(kubeconfig, "wait", "--for=condition=Ready", "pod/left", "--timeout=90s");
    }

    /// <summary>Live processes with the folder in their arguments; zombies have none.</summary>
    private static List<string> ProcessesNaming(string folder) =>
        [.. Directory.EnumerateDirectories("/proc").Select(process => Path.Combine(process, "cmdline")).Select(Read)
            .Where(arguments => arguments.Contains(folder, StringComparison.Ordinal))];

    private static string Read(string file)
    {
        try
        {
            return File.ReadAllText(file);
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    private static bool OnThisMachine(IPAddress address) =>
        System.Net.NetworkInformation.NetworkInterface.GetAllNetworkInterfaces()
            .SelectMany(each => each.GetIPProperties().UnicastAddresses).Any(each => each.Address.Equals(address));

    private static List<string> CgroupsNamed(string name) =>
        [.. Directory.EnumerateDirectories("/sys/fs/cgroup").Append("/sys/fs/cgroup")
            .Select(each => Path.Combine(each, name)).Where(Directory.Exists)];

    private static async Task<string> RulesAsync()
    {
        using var save = Process.Start(new ProcessStartInfo("iptables-save") { RedirectStandardOutput = true })!;
        return await save.StandardOutput.ReadToEndAsync(Ended);
    }
}
