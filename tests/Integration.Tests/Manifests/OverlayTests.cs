using System.Text.RegularExpressions;
using k8s;
using k8s.Models;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Manifests;

/// <summary>What kubectl makes of the overlays, looked at before any server sees it.</summary>
public sealed partial class OverlayTests
{
    private const string System = "tensormesh-system";

    /// <summary>The volumes that Pod Security's restricted level knows.</summary>
    private static readonly Func<V1Volume, object?>[] HarmlessVolumes =
        [volume => volume.ConfigMap, volume => volume.Csi, volume => volume.DownwardAPI, volume => volume.EmptyDir, volume => volume.Ephemeral, volume => volume.PersistentVolumeClaim, volume => volume.Projected, volume => volume.Secret];

    public static TheoryData<string> Overlays => [.. Directory.GetDirectories(Repository.Folder("manifests", "overlays")).Select(folder => Path.GetFileName(folder)).Order(StringComparer.Ordinal)];

    [Theory]
    [MemberData(nameof(Overlays))]
    public async Task Every_pod_beside_the_agents_is_restricted_as_pod_security_says(string overlay)
    {
        var workloads = (await BuildAsync(overlay)).Workloads().ToList();
        Assert.Contains(workloads, each => each.Metadata.Name == "tensormesh-operator");
        Assert.Contains(workloads, each => each.Metadata.Name == "tensormesh-web");
        foreach (var (metadata, pod) in workloads.Where(each => each.Metadata.NamespaceProperty == System))
        {
            var problems = Problems(pod).ToList();
            Assert.True(problems.Count == 0, $"{overlay}: {metadata.Name}: {string.Join("; ", problems)}");
        }
    }

    [Fact]
    public async Task The_agent_breaks_the_restricted_level_by_its_folder_and_its_user_alone()
    {
        var (_, agent) = (await BuildAsync("production")).Workloads().Single(each => each.Metadata.Name == "tensormesh-agent");
        Assert.Equal(["it may run as root", "it runs as root", "volume pod-resources is none of the harmless kinds"], Problems(agent).Order(StringComparer.Ordinal));
        Assert.Equal("/var/lib/kubelet/pod-resources", Assert.Single(agent.Volumes, volume => volume.HostPath is not null).HostPath.Path);
        Assert.All(agent.Containers.SelectMany(container => container.VolumeMounts), mount => Assert.True(mount.ReadOnlyProperty));
    }

    [Theory]
    [MemberData(nameof(Overlays))]
    public async Task No_secret_is_an_argument_or_a_variable_and_every_root_is_read_only(string overlay)
    {
        foreach (var (metadata, pod) in (await BuildAsync(overlay)).Workloads().Where(each => each.Metadata.Name.StartsWith("tensormesh-", StringComparison.Ordinal)))
        {
            foreach (var container in pod.Containers)
            {
                Assert.Null(container.Args);
                Assert.DoesNotContain(container.Env ?? [], variable => variable.ValueFrom?.SecretKeyRef is not null || SecretName().IsMatch(variable.Name));
                Assert.DoesNotContain(container.EnvFrom ?? [], source => source.SecretRef is not null);
                Assert.True(container.SecurityContext.ReadOnlyRootFilesystem, $"{overlay}: {metadata.Name}");
                Assert.NotNull(container.Resources?.Limits?["memory"]);
                Assert.NotNull(container.ReadinessProbe);
                Assert.NotNull(container.LivenessProbe);
            }
        }
    }

    [Fact]
    public async Task In_production_no_image_is_the_dev_clusters_and_replicas_and_budgets_are_as_promised()
    {
        var documents = await BuildAsync("production");
        var workloads = documents.Workloads().ToList();
        Assert.DoesNotContain(workloads.SelectMany(each => each.Pod.Containers), container => container.Image.Contains(":dev", StringComparison.Ordinal));
        var replicas = documents.Of<V1Deployment>("Deployment").ToDictionary(each => each.Name(), each => each.Spec.Replicas);
        Assert.Equal((2, 3), (replicas["tensormesh-operator"], replicas["tensormesh-web"]));
        Assert.Equal(["tensormesh-operator", "tensormesh-web"], documents.Of<V1PodDisruptionBudget>("PodDisruptionBudget").Select(each => each.Name()).Order(StringComparer.Ordinal));
        // No settings of laptops and tests.
        Assert.DoesNotContain("Development", documents.Text, StringComparison.Ordinal);
        Assert.DoesNotContain("Sandbox", documents.Text, StringComparison.Ordinal);
        Assert.DoesNotContain("MOCK", documents.Text, StringComparison.OrdinalIgnoreCase);
    }

    [Theory]
    [MemberData(nameof(Overlays))]
    public async Task Every_port_is_let_in_by_a_policy_and_both_namespaces_let_in_nothing_else(string overlay)
    {
        var documents = await BuildAsync(overlay);
        var policies = documents.Of<V1NetworkPolicy>("NetworkPolicy").ToList();
        foreach (var (metadata, pod) in documents.Workloads().Where(each => each.Metadata.Name.StartsWith("tensormesh-", StringComparison.Ordinal)))
        {
            var own = policies.Where(policy => policy.Namespace() == metadata.NamespaceProperty
                && (policy.Spec.PodSelector.MatchLabels is not { Count: > 0 } labels || labels["app.kubernetes.io/name"] == metadata.Name)).ToList();
            var open = own.SelectMany(policy => policy.Spec.Ingress ?? []).SelectMany(rule => rule.Ports).Select(port => port.Port.Value).ToHashSet(StringComparer.Ordinal);
            Assert.Equal(pod.Containers.SelectMany(container => container.Ports).Select(port => port.Name).Order(StringComparer.Ordinal), open.Order(StringComparer.Ordinal));
            Assert.All(own, policy => Assert.Equal(["Ingress", "Egress"], policy.Spec.PolicyTypes));
        }

        foreach (var ns in documents.Of<V1Namespace>("Namespace"))
            Assert.Contains(policies, policy => policy.Namespace() == ns.Name() && policy.Spec.PodSelector.MatchLabels is not { Count: > 0 });
    }

    [Fact]
    public void Every_kind_is_installed()
        => Assert.Equal(
            Directory.GetFiles(Repository.Folder("crds"), "*.yaml").Select(file => Path.GetFileName(file)).Where(file => file != "kustomization.yaml").Order(StringComparer.Ordinal),
            File.ReadAllLines(Repository.Folder("crds", "kustomization.yaml")).Where(line => line.StartsWith("- ", StringComparison.Ordinal)).Select(line => line[2..]).Order(StringComparer.Ordinal));

    /// <summary>What Pod Security's restricted level says of a pod.</summary>
    private static IEnumerable<string> Problems(V1PodSpec pod)
    {
        if (pod.HostNetwork == true || pod.HostPID == true || pod.HostIPC == true) yield return "it uses namespaces of the node";
        foreach (var volume in pod.Volumes ?? [])
        {
            if (!HarmlessVolumes.Any(kind => kind(volume) is not null)) yield return $"volume {volume.Name} is none of the harmless kinds";
        }

        foreach (var container in (pod.InitContainers ?? []).Concat(pod.Containers))
        {
            var security = container.SecurityContext;
            if (security?.Privileged == true) yield return "it is privileged";
            if (security?.AllowPrivilegeEscalation != false) yield return "it may gain privileges";
            if (security?.Capabilities?.Drop?.Contains("ALL") != true || security.Capabilities.Add is { Count: > 0 }) yield return "it has capabilities";
            if ((security?.RunAsNonRoot ?? pod.SecurityContext?.RunAsNonRoot) != true) yield return "it may run as root";
            if ((security?.RunAsUser ?? pod.SecurityContext?.RunAsUser) == 0) yield return "it runs as root";
            if ((security?.SeccompProfile ?? pod.SecurityContext?.SeccompProfile)?.Type != "RuntimeDefault") yield return "it has no seccomp profile";
            if (container.Ports?.Any(port => port.HostPort is not null) == true) yield return "it takes ports of the node";
        }
    }

    private static async Task<Documents> BuildAsync(string overlay) => new(
        await Kubectl.RunAsync("/dev/null", "kustomize", Repository.Folder("manifests", "overlays", overlay)));

    [GeneratedRegex("Secret$|Key$|Password|ConnectionStrings", RegexOptions.CultureInvariant)]
    private static partial Regex SecretName();

    /// <summary>A stream of YAML, of which kinds that no model knows are left aside.</summary>
    private sealed record Documents(string Text)
    {
        public IEnumerable<T> Of<T>(string kind) => Text.Split("\n---\n")
            .Where(document => document.Split('\n').Contains("kind: " + kind)).Select(document => KubernetesYaml.Deserialize<T>(document));

        public IEnumerable<(V1ObjectMeta Metadata, V1PodSpec Pod)> Workloads() =>
        [
            .. Of<V1Deployment>("Deployment").Select(each => (each.Metadata, each.Spec.Template.Spec)),
            .. Of<V1DaemonSet>("DaemonSet").Select(each => (each.Metadata, each.Spec.Template.Spec)),
            .. Of<V1StatefulSet>("StatefulSet").Select(each => (each.Metadata, each.Spec.Template.Spec)),
        ];
    }
}
