using k8s;
using k8s.Models;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The right to the lease is taken away, and given back.</summary>
public sealed class LeaseRightsTests(FaultFixture faults) : FaultTest(faults)
{
    /// <summary>In manifests/base/operator-rbac.yaml.</summary>
    private const string Binding = "tensormesh-operator";

    private const string Forbidden = "The lease could not be written: 403";

    [Fact]
    public async Task Without_the_right_to_its_lease_an_operator_says_so_stops_acting_and_works_again_once_it_is_granted()
    {
        var team = await OpenTeamAsync("5000.00");
        var kept = await StartAsync(team, "kept");
        await UntilSettledAsync(kept, times: 1);
        var logged = new FileInfo(Installation.OperatorLog).Length;
        var right = await Client.RbacAuthorizationV1.ReadNamespacedRoleBindingAsync(Binding, TestKit.Installation.Namespace, cancellationToken: Ended);
        await Client.RbacAuthorizationV1.DeleteNamespacedRoleBindingAsync(Binding, TestKit.Installation.Namespace, cancellationToken: Ended);
        try
        {
            // Whoever routes to it or watches over it hears of it before it ends.
            Assert.Equal("the leader lease could not be renewed", await Eventually.SeeAsync(ReadinessAsync, words => words != "ok"));
            Assert.Equal(1, await Eventually.SeeAsync(() => Task.FromResult(Installation.OperatorExitCode), code => code is not null));
            var log = await LogAsync(Installation.OperatorLog, logged);
            Assert.Contains(Forbidden, log, StringComparison.Ordinal);
            Assert.Contains("Lost the lease", log, StringComparison.Ordinal);

            // As its Deployment would start it again: it waits, and says for what.
            await Installation.KillOperatorAsync();
            await using var again = await Installation.StartAnotherOperatorAsync("without-rights", NoChanges);
            await again.WaitUntilReadyAsync(Ended);
            var settled = (await RunsAsync(kept)).Single().SettledUntil;
            await CreateAsync(Deployment(team, "new"));
            await UntilLoggedAsync(again.Log, Forbidden, times: 3);
            Assert.Equal(0, await MetricAsync(again.MetricsUrl, "tensormesh_leader"));
            Assert.Null((await ReadAsync(team, "new")).Status);
            Assert.Null(await ChildAsync(team, "new"));
            Assert.Equal(settled, (await RunsAsync(kept)).Single().SettledUntil);

            // The right alone is enough: the process need not be started anew, and nothing of the time without it is lost.
            await GrantAsync(right);
            await UntilLeadingAsync(again.MetricsUrl);
            await SeeExactlyAsync(team, ("kept", 1), ("new", 1));
            await UntilSettledAsync(kept, times: 1);
            Assert.Null(again.ExitCode);
            await again.StopAsync();
        }
        finally
        {
            await GrantAsync(right);
            await StartOverAsync();
        }
    }

    private async Task<string> ReadinessAsync()
    {
        using var http = new HttpClient();
        using var answer = await http.GetAsync(new Uri(Installation.MetricsUrl, "/readyz"), Ended);
        return (await answer.Content.ReadAsStringAsync(Ended)).Trim();
    }

    private async Task GrantAsync(V1RoleBinding right)
    {
        var bindings = await Client.RbacAuthorizationV1.ListNamespacedRoleBindingAsync(TestKit.Installation.Namespace, cancellationToken: CancellationToken.None);
        if (bindings.Items.Any(binding => binding.Name() == Binding)) return;
        right.Metadata.ResourceVersion = null;
        await Client.RbacAuthorizationV1.CreateNamespacedRoleBindingAsync(right, TestKit.Installation.Namespace, cancellationToken: CancellationToken.None);
    }
}
