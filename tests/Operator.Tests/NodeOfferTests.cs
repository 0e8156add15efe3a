using k8s.Models;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Tests;

public sealed class NodeOfferTests
{
    [Fact]
    public void A_node_without_an_agent_is_taken_at_its_labels_word()
    {
        var offer = NodeOffer.From(Node(), null)!;
        Assert.Equal((8, 8, null, false), (offer.Usable, offer.Nominal, offer.Trouble, offer.Avoid));
        Assert.Equal((81559, (9, 0)), (offer.MemoryMiB, offer.ComputeCapability));
    }

    [Fact]
    public void Memory_and_capability_are_what_the_driver_says_and_not_what_a_label_says()
    {
        var seen = Seen(8);
        foreach (var device in seen.Status!.Devices!) (device.MemoryMiB, device.ComputeCapability) = (40960, "8.0");
        seen.Status.Devices[3].MemoryMiB = 20480;
        var offer = NodeOffer.From(Node(), seen)!;
        Assert.Equal((20480, (8, 0)), (offer.MemoryMiB, offer.ComputeCapability));
    }

    [Fact]
    public void Gpus_that_failed_do_not_count_and_the_node_is_avoided_while_the_kubelet_would_hand_them_out()
    {
        var seen = Seen(8);
        Fail(seen, 2, "UncorrectedEcc");
        Fail(seen, 5, "UncorrectedEcc");

        var offered = NodeOffer.From(Node(gpus: 8), seen)!;
        Assert.Equal((6, 8, true), (offered.Usable, offered.Nominal, offered.Avoid));
        Assert.Equal("gpu-a has 6 healthy of 8 (2 UncorrectedEcc)", offered.Trouble);

        // The device plugin has taken them back: what is left can be used.
        var takenBack = NodeOffer.From(Node(gpus: 6), seen)!;
        Assert.Equal((6, 8, false), (takenBack.Usable, takenBack.Nominal, takenBack.Avoid));
    }

    [Fact]
    public void A_gpu_of_which_nothing_is_known_takes_no_new_work()
    {
        var seen = Seen(2);
        (seen.Status!.Devices![0].Health, seen.Status.Devices[0].Reason) = (GpuHealth.Unknown, "Unresponsive");
        var offer = NodeOffer.From(Node(gpus: 2), seen)!;
        Assert.Equal((1, true, "gpu-a has 1 healthy of 2 (1 Unresponsive)"), (offer.Usable, offer.Avoid, offer.Trouble));
    }

    [Fact]
    public void A_node_whose_driver_lists_nothing_offers_nothing_although_the_kubelet_does()
    {
        var zombie = Seen(0, devicesRead: "False", "Zombie");
        var offer = NodeOffer.From(Node(), zombie)!;
        Assert.Equal((0, 8, true, "gpu-a has no GPU that its driver lists (Zombie)"), (offer.Usable, offer.Nominal, offer.Avoid, offer.Trouble));
    }

    [Fact]
    public void An_agent_without_the_drivers_libraries_says_nothing_of_the_gpus()
        => Assert.Equal(8, NodeOffer.From(Node(), Seen(0, devicesRead: "Unknown", "NoDriver"))!.Usable);

    [Fact]
    public void A_node_that_is_labelled_as_what_it_is_not_offers_nothing_under_that_name()
    {
        var seen = Seen(8);
        foreach (var device in seen.Status!.Devices!) device.Product = "NVIDIA-L40S";
        seen.Status.Product = "NVIDIA-L40S";
        var offer = NodeOffer.From(Node(), seen)!;
        Assert.Equal((0, true, $"gpu-a is labelled {A.H100} and has NVIDIA-L40S"), (offer.Usable, offer.Avoid, offer.Trouble));
    }

    [Fact]
    public void Parts_of_a_gpu_are_offered_under_their_own_name_alone_and_never_more_than_there_are()
    {
        var seen = Seen(2);
        seen.Status!.Devices![0].MigInstances = [.. Enumerable.Range(0, 7).Select(part => new GpuMigInstance { Uuid = $"MIG-{part}", MemoryMiB = 10240 })];

        var parts = NodeOffer.From(Node(gpus: 8, "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"), seen)!;
        Assert.Equal((7, 10240), (parts.Usable, parts.MemoryMiB));
        // The one that is divided is no whole GPU any more.
        var whole = NodeOffer.From(Node(gpus: 2), seen)!;
        Assert.Equal((1, 81559), (whole.Usable, whole.MemoryMiB));
    }

    [Fact]
    public void A_refusal_says_what_there_is_and_what_is_amiss_with_it()
    {
        var sick = Seen(8);
        Fail(sick, 0, "Lost");
        Fail(sick, 1, "UncorrectedEcc");
        var inventory = GpuInventory.From([NodeOffer.From(Node(), sick)!]);

        Assert.Null(inventory.Choose(new GpuRequirement { Count = 8 }, held: null, A.Prices));
        Assert.Equal(
            $"6 x {A.H100} (81559 MiB, compute 9.0, at most 6 on one node); gpu-a has 6 healthy of 8 (1 Lost, 1 UncorrectedEcc)", inventory.Describe());
    }

    [Fact]
    public void Many_nodes_in_trouble_are_counted_and_three_of_them_named()
    {
        string[] troubles = ["a", "b", "c", "d", "e"];
        Assert.Equal(["a", "b", "c", "2 more nodes have some that fail"], GpuInventory.Named(troubles));
        Assert.Equal(["a", "b", "c", "1 more node has some that fail"], GpuInventory.Named(troubles[..4]));
        Assert.Equal(troubles[..3], GpuInventory.Named(troubles[..3]));
    }

    [Fact]
    public void What_is_paid_for_keeps_its_product_while_gpus_of_it_fail_and_waits_for_them()
    {
        var sick = Seen(8);
        foreach (var device in sick.Status!.Devices!) (device.Health, device.Reason) = (GpuHealth.Unhealthy, "Lost");
        var other = NodeOffer.From(Node(gpus: 8, A.L40S.Name, "gpu-b"), null)!;
        var inventory = GpuInventory.From([NodeOffer.From(Node(), sick)!, other]);

        var anything = new GpuRequirement { Count = 4 };
        Assert.Equal(A.H100, inventory.Choose(anything, held: A.H100, A.Prices));
        Assert.Equal(A.L40S, inventory.Choose(anything, held: null, A.Prices));
        // An edit to what no node of it ever had does not fit, however many fail.
        Assert.NotEqual(A.H100, inventory.Choose(new GpuRequirement { Count = 9 }, held: A.H100, A.Prices));
    }

    private static void Fail(GpuNode seen, int index, string reason)
        => (seen.Status!.Devices![index].Health, seen.Status.Devices[index].Reason) = (GpuHealth.Unhealthy, reason);

    internal static V1Node Node(int gpus = 8, string? product = null, string name = "gpu-a") => new()
    {
        Metadata = new V1ObjectMeta
        {
            Name = name,
            Labels = new Dictionary<string, string>
            {
                [WellKnown.GpuProductLabel] = product ?? A.H100.Name,
                [WellKnown.GpuMemoryLabel] = "81559",
                [WellKnown.GpuComputeMajorLabel] = "9",
                [WellKnown.GpuComputeMinorLabel] = "0",
            },
        },
        Status = new V1NodeStatus { Allocatable = new Dictionary<string, ResourceQuantity> { [WellKnown.GpuResource] = new($"{gpus}") } },
    };

    internal static GpuNode Seen(int gpus, string devicesRead = "True", string reason = "Working", string name = "gpu-a") => new()
    {
        Metadata = new V1ObjectMeta { Name = name },
        Status = new GpuNodeStatus
        {
            NodeName = name,
            Product = A.H100.Name,
            Devices =
            [
                .. Enumerable.Range(0, gpus).Select(index => new GpuDevice
                {
                    Uuid = $"GPU-{index}",
                    Index = index,
                    Product = A.H100.Name,
                    MemoryMiB = 81559,
                    ComputeCapability = "9.0",
                    Health = GpuHealth.Healthy,
                }),
            ],
            Conditions = [new V1Condition { Type = ConditionTypes.DevicesRead, Status = devicesRead, Reason = reason }],
        },
    };
}
