using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>What others change of ours is put back; what is not ours is left alone.</summary>
public sealed class DriftTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task A_deleted_child_is_made_again()
    {
        var (team, deployment) = await RunOneAsync();
        var child = await ChildAsync(team, "train");
        await Client.AppsV1.DeleteNamespacedDeploymentAsync("train", team.Namespace, cancellationToken: Ended);
        await Eventually.SeeAsync(() => ChildAsync(team, "train"), seen => seen is not null && seen.Uid() != child!.Uid());
        await Eventually.SeeAsync(() => RunsAsync(deployment), runs => runs.Count == 2 && runs.Count(run => run.Accrues) == 1);
        await UntilRunningAsync(team, "train");
    }

    [Fact]
    public async Task A_child_scaled_by_hand_is_scaled_back_and_whatever_ran_is_paid_for()
    {
        var (team, deployment) = await RunOneAsync();
        await KubectlAsync("-n", team.Namespace, "scale", "deployment/train", "--replicas=3");
        await Eventually.SeeAsync(() => ChildAsync(team, "train"), child => child!.Spec.Replicas == 1 && child.Metadata.Generation > 2);
        await Eventually.SeeAsync(() => PodsAsync(team, "train"), pods => pods.Count == 1);
        await Eventually.SeeAsync(() => RunsAsync(deployment), runs => runs.Count(run => run.EndedAt is null) == 1);
    }

    [Fact]
    public async Task An_edited_image_is_put_back()
    {
        var (team, _) = await RunOneAsync();
        await KubectlAsync("-n", team.Namespace, "set", "image", "deployment/train", "main=example.com/else");
        await Eventually.SeeAsync(() => ChildAsync(team, "train"), child =>
            child!.Metadata.Generation > 2 && child.Spec.Template.Spec.Containers.Single().Image == TestKit.DevCluster.WorkloadImage);
        await Eventually.SeeAsync(() => PodsAsync(team, "train"), pods => pods.Count == 1
            && pods[0].Spec.Containers[0].Image == TestKit.DevCluster.WorkloadImage);
        await UntilRunningAsync(team, "train");
    }

    [Fact]
    public async Task A_container_with_gpus_that_was_slipped_in_is_taken_out()
    {
        var (team, _) = await RunOneAsync();
        await Client.AppsV1.PatchNamespacedDeploymentAsync(
            new V1Patch(
                """
                {"spec":{"template":{"spec":{"containers":[
                  {"name":"stowaway","image":"example.com/miner","resources":{"limits":{"nvidia.com/gpu":"4"}}}]}}}}
                """, V1Patch.PatchType.StrategicMergePatch), "train", team.Namespace, cancellationToken: Ended);
        await Eventually.SeeAsync(() => ChildAsync(team, "train"), child => child!.Metadata.Generation > 2
            && child.Spec.Template.Spec.Containers.Count == 1);
        await Eventually.SeeAsync(() => PodsAsync(team, "train"), pods => pods.Count == 1 && pods[0].Spec.Containers.Count == 1);
        await UntilRunningAsync(team, "train");
    }

    [Fact]
    public async Task A_status_that_someone_else_wrote_is_written_again()
    {
        var (team, _) = await RunOneAsync();
        await Client.CustomObjects.PatchNamespacedCustomObjectStatusAsync(
            new V1Patch("""{"status":{"hourlyRate":"0.01","costToDate":"0.00","gpus":99,"conditions":[]}}""", V1Patch.PatchType.MergePatch),
            WellKnown.Group, WellKnown.Version, team.Namespace, GpuDeployment.PluralName, "train", cancellationToken: Ended);
        await SeeAsync(team, "train", seen => IsReady(seen) && seen.Status is { HourlyRate: "3600.00", Gpus: 1 });
    }

    [Fact]
    public async Task A_deployment_of_the_same_name_that_is_not_ours_is_left_alone_and_named()
    {
        var team = await OpenTeamAsync("1000.00");
        var labels = new Dictionary<string, string> { ["app"] = "theirs" };
        var theirs = await Client.AppsV1.CreateNamespacedDeploymentAsync(
            new V1Deployment
            {
                Metadata = new V1ObjectMeta { Name = "train" },
                Spec = new V1DeploymentSpec
                {
                    Replicas = 0,
                    Selector = new V1LabelSelector { MatchLabels = labels },
                    Template = new V1PodTemplateSpec
                    {
                        Metadata = new V1ObjectMeta { Labels = labels },
                        Spec = new V1PodSpec { Containers = [new V1Container { Name = "main", Image = "example.com/theirs" }] },
                    },
                },
            }, team.Namespace, cancellationToken: Ended);

        var deployment = await CreateAsync(Deployment(team, "train"));
        var taken = await SeeAsync(team, "train", seen => Condition(seen, ConditionTypes.Ready)?.Reason == ConditionReasons.NameTaken);
        Assert.Equal("True", Condition(taken, ConditionTypes.Stalled)!.Status);
        Assert.Contains("rename one of them", Condition(taken, ConditionTypes.Ready)!.Message, StringComparison.Ordinal);
        var now = (await ChildAsync(team, "train"))!;
        Assert.Equal((theirs.Uid(), theirs.Metadata!.Generation), (now.Uid(), now.Metadata!.Generation));
        Assert.Null(now.Metadata.OwnerReferences);
        Assert.Equal("example.com/theirs", now.Spec.Template.Spec.Containers.Single().Image);
        await UntilNoHoldAsync(deployment);

        // It can be deleted, and takes nothing of theirs with it.
        await DeleteAsync(team, "train");
        await UntilGoneAsync(team, "train");
        Assert.NotNull(await ChildAsync(team, "train"));
    }

    private async Task<(Team, GpuDeployment)> RunOneAsync()
    {
        var team = await OpenTeamAsync("1000.00");
        return (team, await StartAsync(team, "train"));
    }
}
