using k8s;
using k8s.Models;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The one right that no audit log shows: where the API server asks who may make an object an owner that blocks its deletion.</summary>
public sealed class OwnerRightsTests(OperatorFixture product) : OperatorTest(product)
{
    private const string Role = "tensormesh-operator";

    [Fact]
    public async Task Without_the_right_to_write_finalizers_of_gpudeployments_no_child_is_made_and_with_it_again_it_is()
    {
        var team = await OpenTeamAsync("1000.00");
        var whole = await Client.RbacAuthorizationV1.ReadClusterRoleAsync(Role, cancellationToken: Ended);
        var rules = whole.Rules;
        whole.Rules = [.. rules.Where(rule => !rule.Resources.Contains("gpudeployments/finalizers"))];
        Assert.Equal(rules.Count - 1, whole.Rules.Count);
        await Client.RbacAuthorizationV1.ReplaceClusterRoleAsync(whole, Role, cancellationToken: Ended);
        try
        {
            await CreateAsync(Deployment(team, "train"));
            await Eventually.SeeAsync(OperatorLogAsync, log => log.Any(line => line.Contains(team.Namespace, StringComparison.Ordinal) && line.Contains("blockOwnerDeletion", StringComparison.Ordinal)));
            Assert.Null(await ChildAsync(team, "train"));
        }
        finally
        {
            var restored = await Client.RbacAuthorizationV1.ReadClusterRoleAsync(Role, cancellationToken: CancellationToken.None);
            restored.Rules = rules;
            await Client.RbacAuthorizationV1.ReplaceClusterRoleAsync(restored, Role, cancellationToken: CancellationToken.None);
        }

        await UntilRunningAsync(team, "train");
    }
}
