using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>An operator with the rights that the README lists, and no others; then without the one on leases.</summary>
public sealed class LeaseRightsTests(FaultFixture faults) : FaultTest(faults)
{
    private const string User = "tensormesh-operator";
    private const string LeaseRole = "tensormesh-operator-lease";
    private const string Forbidden = "The lease could not be written: 403";

    [Fact]
    public async Task Without_the_right_to_its_lease_an_operator_says_so_stops_acting_and_works_again_once_it_is_granted()
    {
        var restricted = new Dictionary<string, string> { ["Tensormesh__Kubeconfig"] = Cluster.CreateKubeconfig(User) };
        await GrantRightsAsync();
        var team = await OpenTeamAsync("5000.00");
        await Installation.StopOperatorAsync();
        try
        {
            await using (var first = await Installation.StartAnotherOperatorAsync("restricted-1", restricted))
            {
                await UntilLeadingAsync(first.MetricsUrl);
                var kept = await StartAsync(team, "kept");
                await UntilSettledAsync(kept, times: 1);

                await Client.RbacAuthorizationV1.DeleteNamespacedRoleBindingAsync(LeaseRole, TestKit.Installation.Namespace, cancellationToken: Ended);
                Assert.Equal(1, await Eventually.SeeAsync(() => Task.FromResult(first.ExitCode), code => code is not null));
                var log = await LogAsync(first.Log);
                Assert.Contains(Forbidden, log, StringComparison.Ordinal);
                Assert.Contains("Lost the lease", log, StringComparison.Ordinal);
            }

            // As its Deployment would start it again: it waits, and says for what.
            await using var second = await Installation.StartAnotherOperatorAsync("restricted-2", restricted);
            await second.WaitUntilReadyAsync(Ended);
            await CreateAsync(Deployment(team, "new"));
            await UntilLoggedAsync(second.Log, Forbidden, times: 3);
            Assert.Equal(0, await MetricAsync(second.MetricsUrl, "tensormesh_leader"));
            Assert.Null((await ReadAsync(team, "new")).Status);
            Assert.Null(await ChildAsync(team, "new"));

            // The right alone is enough: the process need not be started anew.
            await BindLeaseAsync();
            await UntilLeadingAsync(second.MetricsUrl);
            await SeeExactlyAsync(team, ("kept", 1), ("new", 1));
            Assert.Null(second.ExitCode);
            await second.StopAsync();
        }
        finally
        {
            await StartOverAsync();
        }
    }

    /// <summary>The table of the README.</summary>
    private async Task GrantRightsAsync()
    {
        await Client.RbacAuthorizationV1.CreateClusterRoleAsync(new V1ClusterRole
        {
            Metadata = new V1ObjectMeta { Name = User },
            Rules =
            [
                Rule(WellKnown.Group, ["gpudeployments"], "get", "list", "watch", "patch"),
                Rule(WellKnown.Group, ["billingaccounts", "pricebooks"], "get", "list", "watch"),
                Rule(WellKnown.Group, ["gpudeployments/status", "billingaccounts/status", "pricebooks/status"], "patch"),
                Rule(WellKnown.Group, ["gpudeployments/finalizers"], "update"),
                Rule("apps", ["deployments"], "get", "list", "watch", "create", "update", "patch", "delete"),
                Rule("", ["pods"], "get", "list", "watch", "patch", "delete"),
                Rule("", ["nodes", "namespaces"], "get", "list", "watch"),
                Rule("", ["events"], "create"),
            ],
        }, cancellationToken: Ended);
        await Client.RbacAuthorizationV1.CreateClusterRoleBindingAsync(new V1ClusterRoleBinding
        {
            Metadata = new V1ObjectMeta { Name = User },
            RoleRef = new V1RoleRef { ApiGroup = V1ClusterRole.KubeGroup, Kind = V1ClusterRole.KubeKind, Name = User },
            Subjects = [Subject],
        }, cancellationToken: Ended);
        await Client.RbacAuthorizationV1.CreateNamespacedRoleAsync(new V1Role
        {
            Metadata = new V1ObjectMeta { Name = LeaseRole },
            Rules = [Rule(V1Lease.KubeGroup, ["leases"], "get", "create", "update")],
        }, TestKit.Installation.Namespace, cancellationToken: Ended);
        await BindLeaseAsync();
    }

    private Task<V1RoleBinding> BindLeaseAsync() => Client.RbacAuthorizationV1.CreateNamespacedRoleBindingAsync(new V1RoleBinding
    {
        Metadata = new V1ObjectMeta { Name = LeaseRole },
        RoleRef = new V1RoleRef { ApiGroup = V1Role.KubeGroup, Kind = V1Role.KubeKind, Name = LeaseRole },
        Subjects = [Subject],
    }, TestKit.Installation.Namespace, cancellationToken: Ended);

    private static Rbacv1Subject Subject => new() { ApiGroup = V1Role.KubeGroup, Kind = "User", Name = User };

    private static V1PolicyRule Rule(string group, IList<string> resources, params string[] verbs)
        => new() { ApiGroups = [group], Resources = resources, Verbs = verbs };
}
